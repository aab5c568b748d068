"""How an uploaded file becomes part of a finetune: paired with the other file, checked, stored, recorded.

The order is what makes an acknowledged upload durable: check, verify, file in place and synced, row committed, return.

Clients send the two files one by one, in any order. A file is never paired with one of the current version unless the
uploader asks for that: the config of one training with the weights of another may pass every check and still be an
adapter that was never trained. So a replacement begins with the first file, which waits for the other for PAIR_WINDOW;
after that, the file of an unfinished upload is not paired with one of a later upload.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from intaglio.errors import AdapterError, DatabaseError, FinetuneError, StorageFullError
from intaglio.finetunes.db.repository import Clock, FinetuneRepository
from intaglio.finetunes.records import Check, Finetune, StoredFile
from intaglio.finetunes.storage.blobs import FileStore, folder_key
from intaglio.finetunes.storage.garbage import GarbageCollector
from intaglio.finetunes.storage.staging import StagedFile
from intaglio.lora.peft.config import CONFIG_FILE
from intaglio.lora.peft.reader import AdapterLimits, check_config_file, check_pair, check_weights_file
from intaglio.model.config import ModelConfig
from intaglio.request import VerifiedAdapter

logger = logging.getLogger(__name__)

PAIR_WINDOW = timedelta(hours=1)

# Steps of a check beside those of `ReadStep`.
STORING = "storing"  # files synced and put in place, rows written
VERIFYING = "verifying"  # the engine runs the adapter and compares

ReportStep = Callable[[str], None]

# Reads the adapter in a folder, checks its values and compares it with the reference. Blocks. Raises AdapterError if
# the adapter is refused, EngineError if the verification could not be done.
Verify = Callable[[str], VerifiedAdapter]


@dataclass(frozen=True, slots=True)
class Base:
    """The base model of a finetune, as far as uploads need it.

    config  its shape
    verify  lets its engine verify an adapter
    """

    config: ModelConfig
    verify: Verify


@dataclass(frozen=True, slots=True)
class _Upload:
    """One uploaded file: the finetune as it was when the check began, the file's name, and its content."""

    finetune: Finetune
    file_name: str
    staged: StagedFile
    stored: StoredFile


class RunningChecks:
    """The checks that run in this process, by finetune id. Each is updated by one thread; any thread may read."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_finetune: dict[str, Check] = {}

    @contextmanager
    def run(self, finetune_id: str, file_name: str) -> Iterator[ReportStep]:
        """Register a check while the block runs. The block gets a function and calls it as each step begins."""
        started_at = self._clock()

        def report(step: str) -> None:
            self._by_finetune[finetune_id] = Check(file_name, str(step), started_at, self._clock())

        report(STORING)
        try:
            yield report
        finally:
            self._by_finetune.pop(finetune_id, None)

    def find(self, finetune_id: str) -> Check | None:
        return self._by_finetune.get(finetune_id)


class Uploads:
    """Checks and stores uploaded files. Calls for one finetune should not overlap: of two that do, one is refused.

    checks  the running checks
    """

    def __init__(
        self,
        repository: FinetuneRepository,
        files: FileStore,
        garbage: GarbageCollector,
        limits: AdapterLimits,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._files = files
        self._garbage = garbage
        self.checks = RunningChecks(clock)
        self._limits = limits
        self._clock = clock

    def accept(
        self,
        finetune: Finetune,
        file_name: str,
        staged: StagedFile,
        base: Base,
        *,
        keep_other_file: bool,
    ) -> None:
        """Check a file against the base, with the other file if that is there, and store it.

        Raises AdapterError saying what is wrong with the file, which is then not stored; FinetuneError if it cannot be
        part of the finetune, or the finetune was changed meanwhile; FinetuneNotFoundError if it was deleted; and
        EngineError, DatabaseError or StorageFullError, which leave the finetune unchanged.
        """
        staged.finish()
        stored = StoredFile(staged.sha256, staged.size_bytes, self._clock())
        upload = _Upload(finetune, file_name, staged, stored)
        others = _other_of_current(upload) if keep_other_file else _other_of_candidate(upload)
        if not others and _is_repeat(upload):
            return
        with self._check(finetune, file_name) as report:
            if others:
                self._accept_pair(upload, others, base, report)
            else:
                self._accept_alone(upload, report)

    @contextmanager
    def converting(self, finetune: Finetune, file_name: str) -> Iterator[None]:
        """A file of another format is read while the block runs, before `accept` gets what was made of it.

        The finetune is shown as checking meanwhile. An AdapterError is recorded as the reason why the file was refused.
        """
        with self._check(finetune, file_name):
            yield
        self._end_check(finetune)

    @contextmanager
    def _check(self, finetune: Finetune, file_name: str) -> Iterator[ReportStep]:
        self._repository.begin_check(finetune)
        try:
            with self.checks.run(finetune.id, file_name) as report:
                yield report
        except AdapterError as error:
            self._refuse(finetune, file_name, error)
            raise
        except BaseException:  # a full disk, for example, or the finetune was changed
            self._end_check(finetune)
            raise

    def _refuse(self, finetune: Finetune, file_name: str, error: AdapterError) -> None:
        try:
            with self._garbage.transaction(finetune.id):
                self._repository.refuse(finetune, file_name, str(error))
        except BaseException:
            self._end_check(finetune)
            raise
        logger.info("finetune %s: %s refused: %s", finetune.id, file_name, error)

    def _end_check(self, finetune: Finetune) -> None:
        try:
            self._repository.end_check(finetune)
        except (DatabaseError, StorageFullError) as error:  # likely what ended the check
            self._garbage.needs_collection = True
            logger.warning("finetune %s is shown as checking until the database responds: %s", finetune.id, error)

    def _accept_alone(self, upload: _Upload, report: ReportStep) -> None:
        with self._files.staging.new_folder({upload.file_name: upload.staged.path}) as folder:
            check = check_config_file if upload.file_name == CONFIG_FILE else check_weights_file
            check(folder / upload.file_name, self._limits, report)
        report(STORING)
        with self._garbage.transaction(upload.finetune.id, new_blobs=[upload.stored.sha256]):
            self._files.add_blob(upload.staged)
            self._repository.put_candidate(upload.finetune, upload.file_name, upload.stored)

    def _accept_pair(
        self,
        upload: _Upload,
        others: Mapping[str, StoredFile],
        base: Base,
        report: ReportStep,
    ) -> None:
        paths = {name: self._files.blob_path(file.sha256) for name, file in others.items()}
        files = {**others, upload.file_name: upload.stored}
        with self._pair_folder(upload, paths) as folder:
            check_pair(folder, base.config, self._limits, report)
            report(VERIFYING)
            verified = base.verify(str(folder))
            report(STORING)
            self._store_pair(upload, files, folder, verified)

    @contextmanager
    def _pair_folder(self, upload: _Upload, others: Mapping[str, Path]) -> Iterator[Path]:
        """A staged folder with the uploaded file and the other one."""
        with ExitStack() as stack:
            try:
                pair = self._files.staging.new_folder({**others, upload.file_name: upload.staged.path})
                folder = stack.enter_context(pair)
            except FileNotFoundError as error:  # the other file was replaced or deleted since its row was read
                name = upload.finetune.name
                raise FinetuneError(
                    f"finetune {name!r} was changed while an upload was checked; upload it again"
                ) from error
            yield folder

    def _store_pair(
        self, upload: _Upload, files: Mapping[str, StoredFile], folder: Path, verified: VerifiedAdapter
    ) -> None:
        finetune, key = upload.finetune, folder_key(files)
        with self._garbage.transaction(finetune.id, new_blobs=[upload.stored.sha256], new_folders=[key]):
            if finetune.current is not None and finetune.current.folder.name == key:
                self._repository.confirm_current(finetune, verified.verification)
                return
            self._files.add_blob(upload.staged)
            self._files.add_folder(folder, files)
            self._repository.promote(finetune, files, verified.digest, key, verified.verification)


def _other_of_candidate(upload: _Upload) -> dict[str, StoredFile]:
    """The candidate's other file, if it has one that may be paired with the uploaded file."""
    finetune = upload.finetune
    if finetune.candidate is None:
        return {}
    others = {name: file for name, file in finetune.candidate.files.items() if name != upload.file_name}
    if finetune.current is None:
        return others
    now = upload.stored.uploaded_at
    return {name: file for name, file in others.items() if now - file.uploaded_at <= PAIR_WINDOW}


def _other_of_current(upload: _Upload) -> dict[str, StoredFile]:
    """The other file of the current version."""
    finetune = upload.finetune
    if finetune.current is None:
        raise FinetuneError(f"finetune {finetune.name!r} is not ready, so it has no other file to pair this one with")
    return {name: file for name, file in finetune.current.files.items() if name != upload.file_name}


def _is_repeat(upload: _Upload) -> bool:
    """Whether this repeats the upload that completed the current version: clients retry when a response is lost.

    Taken for the first file of a replacement, it would wait, and be paired with a file of the next upload.
    """
    current = upload.finetune.current
    if current is None or upload.finetune.candidate is not None:
        return False
    before = current.files[upload.file_name]
    was_last = all(file.uploaded_at <= before.uploaded_at for file in current.files.values())
    is_recent = upload.stored.uploaded_at - before.uploaded_at <= PAIR_WINDOW
    return before.sha256 == upload.stored.sha256 and was_last and is_recent
