"""Everything that can be done with finetunes: create, list, find, take files in and give them out, delete, and resolve
one for a request.

Joins the database (`catalogue`), the files on disk (`files`), the way in (`intake`) and the demo adapters. All methods
block; `add_file` also computes for seconds when the adapter is large.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from intaglio.adapters.catalogue import ORDER_COLUMNS, Catalogue
from intaglio.adapters.clock import Clock, utc_now
from intaglio.adapters.data_lock import DataLock
from intaglio.adapters.files import FileStore, StagedFile
from intaglio.adapters.holdings import Holdings
from intaglio.adapters.intake import Intake
from intaglio.adapters.names import check_finetune_name
from intaglio.adapters.opened_file import OpenedFile
from intaglio.adapters.progress import Checks
from intaglio.adapters.records import ADAPTER_FILES, Finetune, FinetuneState
from intaglio.errors import BadInputError, FinetuneError, FinetuneNotReadyError
from intaglio.lora.packed import PackedAdapters
from intaglio.lora.peft import AdapterLimits
from intaglio.model.config import ModelConfig
from intaglio.request import AdapterRef

logger = logging.getLogger(__name__)


class AdapterStore:
    """Finetunes of all accounts, kept in one data folder, and the demo adapters.

    Raises DataFolderError if the folder's database cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        limits: AdapterLimits,
        max_finetunes: int,
        demos: Sequence[Finetune] = (),
        clock: Clock = utc_now,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._max_finetunes = max_finetunes
        self._demos = tuple(demos)
        self._lock = DataLock(folder)
        self._files = FileStore(folder)
        try:
            self._catalogue = Catalogue(folder / "finetunes.db", clock, alone=self._lock.alone)
        except BaseException:
            self._lock.close()
            raise
        self._checks = Checks(clock)
        self._holdings = Holdings(self._catalogue, self._files)
        self._intake = Intake(self._catalogue, self._files, self._holdings, self._checks, limits, clock)
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
        return [self._completed(found) for found in self._catalogue.list_account(account)]

    def list_public(self, limit: int, offset: int, order_by: str = "created_at") -> list[Finetune]:
        """Public finetunes of all accounts and the demos, sorted. Raises BadInputError for an unknown column."""
        if order_by not in ORDER_COLUMNS:
            raise BadInputError(f"orderBy is {order_by!r}, not one of {', '.join(ORDER_COLUMNS)}")
        users = [self._completed(found) for found in self._catalogue.list_public()]
        return sorted([*self._demos, *users], key=attrgetter(order_by))[offset : offset + limit]

    def list_demos(self, model: str) -> list[Finetune]:
        """The demo adapters of one base."""
        return [demo for demo in self._demos if demo.model == model]

    def find(self, account: str, name_or_id: str) -> Finetune:
        """By name or id: a demo, or what the catalogue finds for the account. Raises FinetuneNotFoundError."""
        for demo in self._demos:  # demo names have a reserved prefix, so they hide nobody's own
            if name_or_id in (demo.name, demo.id):
                return demo
        return self._completed(self._catalogue.find(account, name_or_id))

    def find_own(self, account: str, name_or_id: str) -> Finetune:
        """As `find`, but only what the account may change. Raises FinetuneError for somebody else's."""
        found = self.find(account, name_or_id)
        if found in self._demos:
            raise FinetuneError(f"finetune {found.name!r} comes with the server and cannot be changed or deleted")
        if found.account != account:
            raise FinetuneError(f"finetune {name_or_id!r} belongs to another account and cannot be changed or deleted")
        return found

    def resolve(self, account: str, name_or_id: str, model: str) -> AdapterRef:
        """The adapter that a request names, for the engine.

        Raises FinetuneNotFoundError, FinetuneNotReadyError, or FinetuneError if it was made for another base.
        """
        found = self.find(account, name_or_id)
        if found.model != model:
            raise FinetuneError(f"finetune {name_or_id!r} was made for {found.model} and cannot be used with {model}")
        if found.current is None:
            raise FinetuneNotReadyError(_why_not_ready(found))
        return AdapterRef(digest=found.current.digest, folder=str(found.current.folder))

    def delete(self, account: str, name_or_id: str) -> Finetune:
        """Take a finetune of the account away, with all its files. Returns what it was.

        From the moment of the commit no request finds it and its name is free. Requests that run with it hold the
        adapter in memory and finish; one that still waits ends with an error if the adapter has to be read anew.
        """
        found = self.find_own(account, name_or_id)
        with self._holdings.changing(found.id):
            self._catalogue.delete(found)
        logger.info("finetune %s (%s) deleted by account %s", found.id, found.name, account)
        return found

    def open_file(self, account: str, name_or_id: str, file_name: str) -> OpenedFile:
        """One file of the generation that answers, or of the account's own that has none yet; the caller closes it.

        Open, it can be read to its end whatever happens to the finetune. Raises FinetuneNotFoundError,
        FinetuneNotReadyError if it was not uploaded, or FinetuneError for a name that no adapter file has.
        """
        check_file_name(file_name)
        try:
            return self._open(account, name_or_id, file_name)
        except FileNotFoundError:  # deleted or replaced since its row was read: the row knows by now
            return self._open(account, name_or_id, file_name)

    def stage(self) -> StagedFile:
        """A file to write an upload to; use it as a context manager."""
        return self._files.stage()

    def add_file(
        self,
        account: str,
        name_or_id: str,
        file_name: str,
        staged: StagedFile,
        config: ModelConfig,
        packed: PackedAdapters,
        *,
        keep_other_file: bool = False,
    ) -> Finetune:
        """Check an uploaded file, with its other half if that is there, and keep it. Returns the finetune as it is now.

        keep_other_file  pair it with the other file of the generation that answers
        Raises what `Intake.take` raises.
        """
        check_file_name(file_name)
        finetune = self.find_own(account, name_or_id)
        self._intake.take(finetune, file_name, staged, config, packed, keep_other_file=keep_other_file)
        now = self.find(account, finetune.id)
        logger.info("finetune %s: %s taken, %s, digest %s", now.id, file_name, now.state, now.digest)
        return now

    def _open(self, account: str, name_or_id: str, file_name: str) -> OpenedFile:
        found = self.find(account, name_or_id)
        if found.current is None and found.account != account:
            raise FinetuneNotReadyError(_why_not_ready(found))
        if file_name not in found.files:
            raise FinetuneNotReadyError(f"Finetune {found.name} has no {file_name}: it was not uploaded yet")
        stored = found.files[file_name]
        path = self._files.blob_path(stored.sha256) if found.current is None else found.current.folder / file_name
        return OpenedFile(path.open("rb"), file_name, stored)

    def _completed(self, found: Finetune) -> Finetune:
        """What the rows do not hold: the folder's whole path, and how far a check is."""
        current, candidate = found.current, found.candidate
        if current is not None:
            current = replace(current, folder=self._files.folder_path(current.folder.name))
        if candidate is not None and candidate.state is FinetuneState.CHECKING:
            candidate = replace(candidate, check=self._checks.of(found.id))
        return replace(found, current=current, candidate=candidate)

    def _clean_up(self) -> None:
        """Put right what a crash may have left. Only while nobody else uses the folder."""
        self._catalogue.settle_all()
        removed = self._holdings.sweep()
        if removed:
            logger.info("removed %d unfinished or unused adapter files", removed)


def check_file_name(file_name: str) -> None:
    """Raise FinetuneError if an adapter has no file of that name."""
    if file_name not in ADAPTER_FILES:
        raise FinetuneError(f"file_name is {file_name!r}, not {' or '.join(ADAPTER_FILES)}")


def _why_not_ready(finetune: Finetune) -> str:
    candidate = finetune.candidate
    assert candidate is not None, "it has neither generation nor candidate"
    if candidate.state is FinetuneState.CHECKING:
        return f"Finetune {finetune.name} is being checked; try again in a moment"
    needed, missing = " and ".join(ADAPTER_FILES), " and ".join(candidate.missing_files)
    text = f"Finetune {finetune.name} lacks {missing}: it needs {needed}"
    return f"{text}. The last upload was refused: {candidate.reason}" if candidate.reason else text
