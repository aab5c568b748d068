"""Everything that can be done with finetunes: create, list, find, take files in, and resolve one for a request.

Joins the database (`catalogue`), the files on disk (`files`), the demo adapters and the checks of `lora`. All methods
block; `add_file` also computes for seconds when the adapter is large. The order in it is what makes an acknowledged
upload durable: check, file in place and synced, row committed, return.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from intaglio.adapters.catalogue import ORDER_COLUMNS, Catalogue
from intaglio.adapters.data_lock import DataLock
from intaglio.adapters.files import FileStore, StagedFile
from intaglio.adapters.names import check_finetune_name
from intaglio.adapters.records import ADAPTER_FILES, Finetune, FinetuneState
from intaglio.errors import AdapterError, BadInputError, FinetuneError, FinetuneNotReadyError
from intaglio.lora.packed import PackedAdapters
from intaglio.lora.peft import AdapterLimits, check_config_file, check_weights_file, read_peft_adapter
from intaglio.lora.peft_config import CONFIG_FILE
from intaglio.model.config import ModelConfig
from intaglio.request import AdapterRef

logger = logging.getLogger(__name__)


class AdapterStore:
    """Finetunes of all accounts, kept in one data folder, and the demo adapters."""

    def __init__(self, folder: Path, limits: AdapterLimits, max_finetunes: int, demos: Sequence[Finetune] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.limits = limits
        self._max_finetunes = max_finetunes
        self._demos = tuple(demos)
        self._lock = DataLock(folder)
        self._files = FileStore(folder)
        self._catalogue = Catalogue(folder / "finetunes.db")
        if self._lock.alone:
            self._clean_up()
            self._lock.share()

    def close(self) -> None:
        self._catalogue.close()
        self._lock.close()

    def create(self, *, account: str, name: str, model: str, description: str, public: bool) -> Finetune:
        """A new finetune that waits for its files. Raises FinetuneError."""
        check_finetune_name(name)
        made = self._catalogue.create(
            account=account,
            name=name,
            model=model,
            description=description,
            public=public,
            max_finetunes=self._max_finetunes,
        )
        logger.info("finetune %s (%s) created for %s by account %s", made.id, name, model, account)
        return made

    def list_account(self, account: str) -> list[Finetune]:
        return self._catalogue.list_account(account)

    def list_public(self, limit: int, offset: int, order_by: str = "created_at") -> list[Finetune]:
        """Public finetunes of all accounts and the demos, sorted. Raises BadInputError for an unknown column."""
        if order_by not in ORDER_COLUMNS:
            raise BadInputError(f"orderBy is {order_by!r}, not one of {', '.join(ORDER_COLUMNS)}")
        found = sorted([*self._demos, *self._catalogue.list_public()], key=attrgetter(order_by))
        return found[offset : offset + limit]

    def list_demos(self, model: str) -> list[Finetune]:
        """The demo adapters of one base."""
        return [demo for demo in self._demos if demo.model == model]

    def find(self, account: str, name_or_id: str) -> Finetune:
        """By name or id: a demo, or what the catalogue finds for the account. Raises FinetuneNotFoundError."""
        for demo in self._demos:  # demo names have a reserved prefix, so they hide nobody's own
            if name_or_id in (demo.name, demo.id):
                return demo
        found = self._catalogue.find(account, name_or_id)
        return replace(found, folder=self._files.folder_path(found.folder.name)) if found.folder else found

    def find_own(self, account: str, name_or_id: str) -> Finetune:
        """As `find`, but only what the account may change. Raises FinetuneError for somebody else's."""
        found = self.find(account, name_or_id)
        if found.account != account:
            raise FinetuneError(f"finetune {name_or_id!r} belongs to another account and cannot be changed")
        return found

    def resolve(self, account: str, name_or_id: str, model: str) -> AdapterRef:
        """The adapter that a request names, for the engine.

        Raises FinetuneNotFoundError, FinetuneNotReadyError, or FinetuneError if it was made for another base.
        """
        found = self.find(account, name_or_id)
        if found.model != model:
            raise FinetuneError(f"finetune {name_or_id!r} was made for {found.model} and cannot be used with {model}")
        if found.state is not FinetuneState.READY or found.digest is None or found.folder is None:
            raise FinetuneNotReadyError(_why_not_ready(found))
        return AdapterRef(digest=found.digest, folder=str(found.folder))

    def stage(self) -> StagedFile:
        """A file to write an upload to; use it as a context manager."""
        return self._files.stage()

    def check_changeable(self, finetune: Finetune, file_name: str) -> None:
        """Raise FinetuneError if `file_name` cannot be uploaded to the finetune as it stands."""
        if file_name not in ADAPTER_FILES:
            raise FinetuneError(f"file_name is {file_name!r}, not {' or '.join(ADAPTER_FILES)}")
        if finetune.state is FinetuneState.READY:
            raise FinetuneError(
                f"finetune {finetune.name!r} is ready and its files cannot be replaced; create another finetune"
            )

    def add_file(
        self,
        account: str,
        name_or_id: str,
        file_name: str,
        staged: StagedFile,
        config: ModelConfig,
        packed: PackedAdapters,
    ) -> Finetune:
        """Check an uploaded file, with the other one if it is there, and keep it. Returns the finetune as it is now.

        config is the shape of the finetune's base; a good adapter also goes to `packed`, where the base's engine finds
        it. Raises AdapterError saying what is wrong with the file; nothing of it is kept then, and files taken in
        before stay. Calls for one finetune must not overlap.
        """
        finetune = self.find_own(account, name_or_id)
        self.check_changeable(finetune, file_name)
        staged.finish()
        self._catalogue.set_state(finetune.id, FinetuneState.CHECKING)
        try:
            self._check_and_keep(finetune, file_name, staged, config, packed)
        except AdapterError as error:
            self._catalogue.set_state(finetune.id, FinetuneState.REFUSED, str(error))
            logger.info("finetune %s: %s refused: %s", finetune.id, file_name, error)
            raise
        except BaseException:  # a full disk, for one: the finetune is as it was
            self._catalogue.set_state(finetune.id, finetune.state, finetune.reason)
            raise
        now = self.find(account, finetune.id)
        logger.info("finetune %s: %s taken, %s, digest %s", now.id, file_name, now.state, now.digest)
        return now

    def _check_and_keep(
        self, finetune: Finetune, file_name: str, staged: StagedFile, config: ModelConfig, packed: PackedAdapters
    ) -> None:
        others = {name: file for name, file in finetune.files.items() if name != file_name}
        paths = {name: self._files.blob_path(file.sha256) for name, file in others.items()}
        with self._files.assembled({**paths, file_name: staged.path}) as folder:
            self._check_alone(folder / file_name)
            if not others:
                self._catalogue.add_file(finetune.id, file_name, self._files.keep(staged))
                return
            adapter = read_peft_adapter(folder, config, self.limits)
            stored = self._files.keep(staged)
            key = self._files.keep_folder(folder, {**others, file_name: stored})
        packed.keep(adapter)
        self._catalogue.make_ready(finetune.id, file_name, stored, adapter.digest, key)

    def _check_alone(self, path: Path) -> None:
        if path.name == CONFIG_FILE:
            check_config_file(path, self.limits)
        else:
            check_weights_file(path, self.limits)

    def _clean_up(self) -> None:
        """Put right what a crash may have left. Only while nobody else uses the folder."""
        self._catalogue.recover()
        removed = self._files.sweep(self._catalogue.kept_blobs(), self._catalogue.kept_folders())
        if removed:
            logger.info("removed %d unfinished or unused adapter files", removed)


def _why_not_ready(finetune: Finetune) -> str:
    if finetune.state is FinetuneState.CHECKING:
        return f"Finetune {finetune.name} is being checked; try again in a moment"
    text = (
        f"Finetune {finetune.name} lacks {' and '.join(finetune.missing_files)}: it needs {' and '.join(ADAPTER_FILES)}"
    )
    return f"{text}. The last upload was refused: {finetune.reason}" if finetune.reason else text
