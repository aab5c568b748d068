"""How an uploaded file becomes part of a finetune: joined with its other half, checked, put in place, recorded.

The order is what makes an acknowledged upload durable: check, verify, file in place and synced, row committed, return.

Which two files belong together is for uploads to say, since every client sends them one by one and in the order it
likes. A file never joins one of the version that answers unless the uploader asks for that: a config of one
training with the weights of another may pass every check and still be an adapter that nobody trained. So a replacement
begins with whichever file comes first, which waits for the other; if that takes more than JOIN_WINDOW the wait is over,
and what was left of an upload that was never finished meets no file of a later one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from intaglio.errors import AdapterError, DatabaseError, FinetuneError, StorageFullError
from intaglio.finetunes.clock import Clock
from intaglio.finetunes.db.repository import FinetuneRepository
from intaglio.finetunes.progress import STORING, VERIFYING, Checks
from intaglio.finetunes.records import Finetune, StoredFile
from intaglio.finetunes.storage.blobs import FileStore, folder_key
from intaglio.finetunes.storage.collection import Holdings
from intaglio.finetunes.storage.staging import StagedFile
from intaglio.lora.peft.base_tables import BaseTables
from intaglio.lora.peft.config import CONFIG_FILE
from intaglio.lora.peft.reader import AdapterLimits, check_config_file, check_weights_file, read_peft_adapter
from intaglio.model.config import ModelConfig
from intaglio.request import AdapterRef, Verification

logger = logging.getLogger(__name__)

JOIN_WINDOW = timedelta(hours=1)

# Runs an adapter whose files lie in a folder against the reference. Blocks. Raises AdapterError when the adapter is not
# verified, EngineError when the engine cannot say.
Verify = Callable[[AdapterRef], Verification]


@dataclass(frozen=True, slots=True)
class Base:
    """What is known here of a finetune's base model.

    config  its shape
    verify   asks its engine
    tables  its embedding and head, for adapters that have such tables themselves; without it those are refused
    """

    config: ModelConfig
    verify: Verify
    tables: BaseTables | None = None


@dataclass(frozen=True, slots=True)
class _Upload:
    """One file on its way in: the finetune as it was when the check began, the file's name, and its content."""

    finetune: Finetune
    file_name: str
    staged: StagedFile
    stored: StoredFile


class Intake:
    """Takes files in. Calls for one finetune should not overlap: of two that do, one is refused."""

    def __init__(
        self,
        catalogue: FinetuneRepository,
        files: FileStore,
        holdings: Holdings,
        checks: Checks,
        limits: AdapterLimits,
        clock: Clock,
    ) -> None:
        self._catalogue = catalogue
        self._files = files
        self._holdings = holdings
        self._checks = checks
        self._limits = limits
        self._clock = clock

    def take(
        self,
        finetune: Finetune,
        file_name: str,
        staged: StagedFile,
        base: Base,
        *,
        keep_other_file: bool,
    ) -> None:
        """Check a file, with its other half if that is there, and keep it.

        base is what the two files are held against together, before anything is kept. Raises AdapterError saying what
        is wrong with the file, of which nothing is kept then; FinetuneError if it cannot be part of the finetune or
        that was changed meanwhile; FinetuneNotFoundError if it was deleted; and EngineError, DatabaseError or
        StorageFullError, of which the finetune knows nothing afterwards.
        """
        staged.finish()
        now = self._clock()
        upload = _Upload(finetune, file_name, staged, StoredFile(staged.sha256, staged.size_bytes, now))
        others = _current_other(finetune, file_name) if keep_other_file else _candidate_other(finetune, file_name, now)
        if not others and _is_repeat(upload):
            return
        self._catalogue.begin_check(finetune)
        try:
            with self._checks.running(finetune.id, file_name) as note:
                if others:
                    self._take_pair(upload, others, base, note)
                else:
                    self._take_alone(upload, note)
        except AdapterError as error:
            self._refuse(finetune, file_name, error)
            raise
        except BaseException:  # a full disk, for one, or the finetune is not what it was
            self._settle(finetune)
            raise

    def _refuse(self, finetune: Finetune, file_name: str, error: AdapterError) -> None:
        try:
            with self._holdings.changing(finetune.id):
                self._catalogue.refuse(finetune, file_name, str(error))
        except BaseException:
            self._settle(finetune)
            raise
        logger.info("finetune %s: %s refused: %s", finetune.id, file_name, error)

    def _settle(self, finetune: Finetune) -> None:
        try:
            self._catalogue.settle(finetune)
        except (DatabaseError, StorageFullError) as error:  # likely what ended the check
            self._holdings.untidy = True
            logger.warning("finetune %s is shown as checking until the database answers: %s", finetune.id, error)

    def _take_alone(self, upload: _Upload, note: Callable[[str], None]) -> None:
        with self._files.assembled({upload.file_name: upload.staged.path}) as folder:
            check = check_config_file if upload.file_name == CONFIG_FILE else check_weights_file
            check(folder / upload.file_name, self._limits, note)
        note(STORING)
        with self._holdings.changing(upload.finetune.id, new_blobs=[upload.stored.sha256]):
            self._files.keep(upload.staged)
            self._catalogue.put_candidate(upload.finetune, upload.file_name, upload.stored)

    def _take_pair(
        self,
        upload: _Upload,
        others: Mapping[str, StoredFile],
        base: Base,
        note: Callable[[str], None],
    ) -> None:
        paths = {name: self._files.blob_path(file.sha256) for name, file in others.items()}
        files = {**others, upload.file_name: upload.stored}
        with self._assembled(upload, paths) as folder:
            digest = read_peft_adapter(folder, base.config, self._limits, note, base.tables).digest
            note(VERIFYING)
            verification = base.verify(AdapterRef(digest, str(folder)))
            note(STORING)
            self._keep_pair(upload, files, folder, digest, verification)

    @contextmanager
    def _assembled(self, upload: _Upload, others: Mapping[str, Path]) -> Iterator[Path]:
        with ExitStack() as stack:
            try:
                both = self._files.assembled({**others, upload.file_name: upload.staged.path})
                folder = stack.enter_context(both)
            except FileNotFoundError as error:  # the other file was replaced or deleted since its row was read
                name = upload.finetune.name
                raise FinetuneError(
                    f"finetune {name!r} was changed while an upload was checked; upload it again"
                ) from error
            yield folder

    def _keep_pair(
        self, upload: _Upload, files: Mapping[str, StoredFile], folder: Path, digest: str, verification: Verification
    ) -> None:
        finetune, key = upload.finetune, folder_key(files)
        with self._holdings.changing(finetune.id, new_blobs=[upload.stored.sha256], new_folders=[key]):
            if finetune.current is not None and finetune.current.folder.name == key:
                self._catalogue.confirm(finetune, verification)  # the very files that answer already
                return
            self._files.keep(upload.staged)
            self._files.keep_folder(folder, files)
            self._catalogue.promote(finetune, files, digest, key, verification)


def _candidate_other(finetune: Finetune, file_name: str, now: datetime) -> dict[str, StoredFile]:
    """The other file, if it was uploaded and this one may join it."""
    if finetune.candidate is None:
        return {}
    others = {name: file for name, file in finetune.candidate.files.items() if name != file_name}
    if finetune.current is None:
        return others
    return {name: file for name, file in others.items() if now - file.uploaded_at <= JOIN_WINDOW}


def _current_other(finetune: Finetune, file_name: str) -> dict[str, StoredFile]:
    """The other file of the version that answers."""
    if finetune.current is None:
        raise FinetuneError(f"finetune {finetune.name!r} is not ready, so it has no other file that could be kept")
    return {name: file for name, file in finetune.current.files.items() if name != file_name}


def _is_repeat(upload: _Upload) -> bool:
    """Whether this is the upload that completed the current version, sent again: clients do when an answer is lost.

    Taken for the first half of a replacement it would wait, and join a file of the next one.
    """
    current = upload.finetune.current
    if current is None or upload.finetune.candidate is not None:
        return False
    same = current.files[upload.file_name]
    was_last = all(file.uploaded_at <= same.uploaded_at for file in current.files.values())
    recent = upload.stored.uploaded_at - same.uploaded_at <= JOIN_WINDOW
    return same.sha256 == upload.stored.sha256 and was_last and recent
