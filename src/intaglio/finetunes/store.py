"""Everything that can be done with finetunes: create, list, find, upload and download files, roll back, delete, and
resolve those that a request names.

Joins the database (`repository`), the files on disk (`files`), uploads and the demo adapters. All methods block;
`add_file` also computes for seconds when the adapter is large.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from intaglio.errors import AdapterError, BadInputError, FinetuneError, FinetuneNotFoundError, FinetuneNotReadyError
from intaglio.finetunes.db.repository import ORDER_COLUMNS, Clock, FinetuneRepository, utc_now
from intaglio.finetunes.mixes import FoundAdapter, check_mix, combine
from intaglio.finetunes.names import check_finetune_name
from intaglio.finetunes.records import ADAPTER_FILES, OTHER_NAMES, Finetune, FinetuneState, FinetuneVersion
from intaglio.finetunes.storage.blobs import FileStore, OpenedFile
from intaglio.finetunes.storage.data_lock import DataLock
from intaglio.finetunes.storage.garbage import GarbageCollector
from intaglio.finetunes.storage.ownership import check_database_id
from intaglio.finetunes.storage.staging import StagedFile, full_disk_as_error
from intaglio.finetunes.upload import Base, Uploads, Verify
from intaglio.lora.formats.gguf import SUFFIX as GGUF_SUFFIX
from intaglio.lora.formats.gguf import GgufAdapter, gguf_to_peft
from intaglio.lora.formats.other_kinds import NUM_BYTES, describe
from intaglio.lora.peft.reader import CONFIG_FILE, WEIGHTS_FILE, AdapterLimits
from intaglio.model.config import ModelConfig
from intaglio.request import AdapterRef, ScaledAdapter
from intaglio.wording.similar import similar_names

logger = logging.getLogger(__name__)


class FinetuneStore:
    """Finetunes of all accounts, their files in one data folder, and the demo adapters.

    staging        uploads in progress
    database_url   PostgreSQL for the rows; None is an SQLite file in the folder
    kept_versions  versions of a finetune whose files are kept, the current one included

    Raises DataFolderError if the database cannot be used or belongs to another folder.
    """

    def __init__(
        self,
        folder: Path,
        limits: AdapterLimits,
        max_finetunes: int,
        demos: Sequence[Finetune] = (),
        clock: Clock = utc_now,
        *,
        database_url: str | None = None,
        kept_versions: int = 2,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._max_finetunes = max_finetunes
        self._limits = limits
        self._demos = tuple(demos)
        self._lock = DataLock(folder)
        self._files = FileStore(folder)
        self.staging = self._files.staging
        try:
            self._repository = FinetuneRepository(
                folder / "finetunes.db", clock, url=database_url, alone=self._lock.alone, kept_versions=kept_versions
            )
        except BaseException:
            self._lock.close()
            raise
        self._garbage = GarbageCollector(self._repository, self._files, clock)
        self._uploads = Uploads(self._repository, self._files, self._garbage, limits, clock)
        try:
            check_database_id(folder, self._repository)
            self._garbage.collect()
        except BaseException:
            self.close()
            raise
        if self._lock.alone:
            self._lock.share()

    def close(self) -> None:
        self._repository.close()
        self._lock.close()

    def create(self, *, account: str, name: str, model: str, description: str, public: bool) -> Finetune:
        """Create a finetune, which then waits for its files. Raises FinetuneError."""
        check_finetune_name(name)
        if "\0" in description:
            raise FinetuneError("description has a NUL character, which cannot be stored")
        made = self._repository.create(
            account=account,
            name=name,
            model=model,
            description=description,
            public=public,
            max_finetunes=self._max_finetunes,
        )
        self._garbage.after_change()
        logger.info("finetune %s (%s) created for %s by account %s", made.id, name, model, account)
        return made

    def list_account(self, account: str) -> list[Finetune]:
        return [self._with_paths_and_check(found) for found in self._repository.list_account(account)]

    def list_public(self, limit: int, offset: int, order_by: str = "created_at") -> list[Finetune]:
        """Public finetunes of all accounts and the demos, sorted. Raises BadInputError for an unknown column."""
        if order_by not in ORDER_COLUMNS:
            raise BadInputError(f"orderBy is {order_by!r}, not one of {', '.join(ORDER_COLUMNS)}")
        users = [self._with_paths_and_check(found) for found in self._repository.list_public(order_by, offset + limit)]
        return sorted([*self._demos, *users], key=attrgetter(order_by, "id"))[offset : offset + limit]

    def list_demos(self, model: str) -> list[Finetune]:
        """The demo adapters of one base."""
        return [demo for demo in self._demos if demo.model == model]

    def find(self, account: str, name_or_id: str) -> Finetune:
        """A demo of that name or id, or what the repository finds for the account.

        Raises FinetuneNotFoundError with the names of the account and of demos that resemble it.
        """
        demo = self._find_demo(name_or_id)
        if demo is not None:
            return demo
        try:
            found = self._repository.find(account, name_or_id)
            if self._garbage.after_failure():
                found = self._repository.find(account, name_or_id)
        except FinetuneNotFoundError as error:
            similar = self._similar(account, name_or_id)
            raise FinetuneNotFoundError(str(error), similar, is_empty=not name_or_id) from error
        return self._with_paths_and_check(found)

    def find_own(self, account: str, name_or_id: str) -> Finetune:
        """Like `find`, but raises FinetuneError for a finetune that the account may not change."""
        found = self.find(account, name_or_id)
        if found in self._demos:
            raise FinetuneError(f"finetune {found.name!r} comes with the server and cannot be changed or deleted")
        if found.account != account:
            raise FinetuneError(f"finetune {name_or_id!r} belongs to another account and cannot be changed or deleted")
        return found

    def resolve(self, account: str, name_or_id: str, model: str, *, answered_by: str | None = None) -> AdapterRef:
        """The adapter that a request names, for the engine.

        answered_by  the base that stands in for `model`, if one does: then its adapters can be used too
        Raises FinetuneNotFoundError, FinetuneNotReadyError, or FinetuneError if it was made for another base.
        """
        return self._find_adapter(account, name_or_id, model, answered_by).ref

    def resolve_mix(
        self, account: str, adapters: Sequence[tuple[str, float]], model: str, *, answered_by: str | None = None
    ) -> tuple[ScaledAdapter, ...]:
        """The adapters that a request names, each with its scale, for the engine: see `mixes.combine`.

        answered_by  as for `resolve`
        Raises what `resolve`, `mixes.check_mix` and `mixes.combine` raise.
        """
        check_mix(adapters)
        return combine([(self._find_adapter(account, name, model, answered_by), scale) for name, scale in adapters])

    def delete(self, account: str, name_or_id: str) -> Finetune:
        """Delete a finetune of the account with all its files. Returns it as it was.

        After the commit no request finds it and its name is free. Running requests hold the adapter in memory and
        finish; a waiting request ends with an error if the adapter has to be read again.
        """
        found = self.find_own(account, name_or_id)
        with self._garbage.transaction(found.id):
            self._repository.delete(found)
        self._garbage.after_change()
        logger.info("finetune %s (%s) deleted by account %s", found.id, found.name, account)
        return found

    def roll_back(self, account: str, name_or_id: str, to: int | None = None) -> Finetune:
        """Make the version before the current one, or number `to`, the current one again. Returns the finetune now.

        It becomes the next version: same files, digest and verification, a new number. So a second call undoes the
        first. Running requests finish with the version they started with. Raises FinetuneError if no such version is
        kept.
        """
        finetune = self.find_own(account, name_or_id)
        with self._garbage.transaction(finetune.id):
            self._repository.roll_back(finetune, to)
        self._garbage.after_change()
        now = self.find(account, finetune.id)
        logger.info("finetune %s (%s) rolled back by account %s, digest %s", now.id, now.name, account, now.digest)
        return now

    def collect_garbage(self) -> int:
        """Remove what no row points to and no process uses; also done at the start, hourly and after failures.

        Other servers may use the folder meanwhile. Returns how many files and folders were removed.
        Raises DatabaseError.
        """
        return self._garbage.collect()

    def open_file(self, account: str, name_or_id: str, file_name: str) -> OpenedFile:
        """One file of the current version, or of the account's own finetune that has none yet; the caller closes it.

        It can be read to its end even if the finetune is deleted meanwhile. Raises FinetuneNotFoundError,
        FinetuneNotReadyError if it was not uploaded, or FinetuneError for a name that no adapter file has.
        """
        check_file_name(file_name)
        try:
            return self._open_file(account, name_or_id, file_name)
        except FileNotFoundError:  # deleted or replaced since its row was read: read the row again
            return self._open_file(account, name_or_id, file_name)

    def add_file(
        self,
        account: str,
        name_or_id: str,
        file_name: str,
        staged: StagedFile,
        config: ModelConfig,
        verify: Verify,
        *,
        keep_other_file: bool = False,
    ) -> Finetune:
        """Check an uploaded file, with the other file if that is there, and store it. Returns the finetune now.

        file_name        one of ADAPTER_FILES, see `stored_name`
        verify           runs the pair in the engine of the finetune's base, before the files are stored
        keep_other_file  pair it with the other file of the current version

        Raises what `Uploads.accept` raises.
        """
        finetune = self.find_own(account, name_or_id)
        if file_name not in ADAPTER_FILES:
            self._refuse_kind(finetune, file_name, staged)
        check_file_name(file_name)
        with full_disk_as_error():
            base = Base(config, verify)
            self._uploads.accept(finetune, file_name, staged, base, keep_other_file=keep_other_file)
        self._garbage.after_change()
        now = self.find(account, finetune.id)
        logger.info("finetune %s: %s accepted, %s, digest %s", now.id, file_name, now.state, now.digest)
        return now

    def _refuse_kind(self, finetune: Finetune, file_name: str, staged: StagedFile) -> None:
        """Raise AdapterError, and record it, if the first bytes tell what the file is: a pickle, an archive, ...

        A JSON text may be a config whose name alone is wrong, which is no reason to record.
        """
        with full_disk_as_error():
            staged.finish()
        with staged.path.open("rb") as file:
            beginning = file.read(NUM_BYTES)
        kind = describe(beginning)
        if kind is not None and not beginning.lstrip().startswith(b"{"):
            with self._uploads.converting(finetune, file_name):
                raise AdapterError(f"{file_name[:80]!r} {kind}")

    def add_gguf(
        self, account: str, name_or_id: str, file_name: str, staged: StagedFile, config: ModelConfig, verify: Verify
    ) -> Finetune:
        """Write an uploaded GGUF adapter as PEFT's two files, and add these as `add_file` does.

        file_name  the upload's, which the finetune shows while the file is read

        A file that waits for the other one is replaced first, so that it is not paired with one of these.
        """
        finetune = self.find_own(account, name_or_id)
        waiting = () if finetune.candidate is None else tuple(finetune.candidate.files)
        staged.finish()
        with self.staging.new_file() as settings, self.staging.new_file() as weights:
            with (
                full_disk_as_error(),
                self._uploads.converting(finetune, file_name),
                GgufAdapter(staged.path, self._limits.max_file_bytes, "the GGUF file") as adapter,
            ):
                gguf_to_peft(adapter, config.family, settings.write, weights.write)
            files = {CONFIG_FILE: settings, WEIGHTS_FILE: weights}
            for made in sorted(files, key=lambda name: (name not in waiting, name)):
                now = self.add_file(account, finetune.id, made, files[made], config, verify)
        return now

    def discard_upload(self, account: str, name_or_id: str) -> Finetune:
        """Forget an unfinished or refused upload; the current version stays. Returns the finetune.

        Raises FinetuneError if it has no version, which is a case for `delete`, or if an upload is being checked.
        """
        finetune = self.find_own(account, name_or_id)
        candidate = finetune.candidate
        if finetune.current is None:
            raise FinetuneError(f"finetune {finetune.name!r} has no version to keep; delete it as a whole")
        if candidate is not None and candidate.state is FinetuneState.CHECKING:
            raise FinetuneError(f"finetune {finetune.name!r} has an upload that is being checked; try again afterwards")
        if candidate is not None:
            with full_disk_as_error(), self._garbage.transaction(finetune.id):
                self._repository.drop_candidate(finetune)
            self._garbage.after_change()
            logger.info("finetune %s: the unfinished upload was discarded", finetune.id)
        return self.find(account, finetune.id)

    def _open_file(self, account: str, name_or_id: str, file_name: str) -> OpenedFile:
        found = self.find(account, name_or_id)
        if found.current is None and found.account != account:
            raise FinetuneNotReadyError(_why_not_ready(found))
        if file_name not in found.files:
            raise FinetuneNotReadyError(f"Finetune {found.name} has no {file_name}: it was not uploaded yet")
        stored = found.files[file_name]
        path = self._files.blob_path(stored.sha256) if found.current is None else found.current.folder / file_name
        return OpenedFile(path.open("rb"), file_name, stored)

    def _similar(self, account: str, name: str) -> tuple[str, ...]:
        demos = [demo.name for demo in self._demos]
        return similar_names(name, [*self._repository.names_like(account, name), *demos])

    def _find_demo(self, name_or_id: str) -> Finetune | None:
        """The demo of that name or id. Their names have a reserved prefix, so they hide no other finetune."""
        return next((demo for demo in self._demos if name_or_id in (demo.name, demo.id)), None)

    def _find_adapter(self, account: str, name_or_id: str, model: str, answered_by: str | None) -> FoundAdapter:
        demo = self._find_demo(name_or_id)
        if demo is not None and demo.current is not None:
            base, ref, verification = demo.model, _ref(demo.current), demo.current.verification
        else:
            row = self._repository.find_servable(account, name_or_id)
            if row is None:
                found = self.find(account, name_or_id)
                _check_base(name_or_id, found.model, model, answered_by)
                raise FinetuneNotReadyError(_why_not_ready(found))
            base, verification = row.model, row.verification
            ref = AdapterRef(row.digest, str(self._files.folder_path(row.folder)))
        _check_base(name_or_id, base, model, answered_by)
        return FoundAdapter(name_or_id, ref, verification)

    def _with_paths_and_check(self, found: Finetune) -> Finetune:
        """Add what the rows do not have: the full paths of folders, and the running check."""
        current, candidate = found.current, found.candidate
        if current is not None:
            current = self._with_full_path(current)
        if candidate is not None and candidate.state is FinetuneState.CHECKING:
            candidate = replace(candidate, check=self._uploads.checks.find(found.id))
        earlier = tuple(self._with_full_path(one) for one in found.earlier)
        return replace(found, current=current, candidate=candidate, earlier=earlier)

    def _with_full_path(self, version: FinetuneVersion) -> FinetuneVersion:
        return replace(version, folder=self._files.folder_path(version.folder.name))


def check_file_name(file_name: str) -> None:
    """Raise FinetuneError unless this is the name of an adapter file."""
    if file_name not in ADAPTER_FILES:
        others = f"{', '.join(OTHER_NAMES)} of MLX-LM and one file that ends in {GGUF_SUFFIX} are taken in uploads"
        raise FinetuneError(f"file_name is {file_name!r}, not {' or '.join(ADAPTER_FILES)}; {others}")


def stored_name(file_name: str) -> str:
    """The name under which an uploaded file is stored."""
    return OTHER_NAMES.get(file_name, file_name)


def is_gguf_name(file_name: str) -> bool:
    """Whether an upload of this name is a GGUF adapter: see `FinetuneStore.add_gguf`."""
    return file_name.lower().endswith(GGUF_SUFFIX)


def _ref(version: FinetuneVersion) -> AdapterRef:
    return AdapterRef(digest=version.digest, folder=str(version.folder))


def _check_base(name_or_id: str, made_for: str, model: str, answered_by: str | None) -> None:
    if made_for not in (model, answered_by):
        raise FinetuneError(f"finetune {name_or_id!r} was made for {made_for} and cannot be used with {model}")


def _why_not_ready(finetune: Finetune) -> str:
    candidate = finetune.candidate
    assert candidate is not None, "it has neither version nor candidate"
    if candidate.state is FinetuneState.CHECKING:
        return f"Finetune {finetune.name} is being checked; try again in a moment"
    needed, missing = " and ".join(ADAPTER_FILES), " and ".join(candidate.missing_files)
    text = f"Finetune {finetune.name} lacks {missing}: it needs {needed}"
    return f"{text}. The last upload was refused: {candidate.reason}" if candidate.reason else text
