"""The finetunes in the database: rows in, records out. Does not know files and does not check adapters.

All methods block and may be called from any thread; the event loop calls them through `asyncio.to_thread`. When one
returns, its change survives `kill -9` and a power cut. Methods that end a check get the finetune as it was when the
check began, and raise if it has been deleted or changed since. All raise DatabaseError while the database does not
respond, and StorageFullError when its disk is full; a change is then made completely or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from intaglio.database import open_database
from intaglio.errors import FinetuneError, FinetuneNotFoundError
from intaglio.finetunes.db import rows
from intaglio.finetunes.db.rows import Servable, matches, read_finetunes, read_servable, utc_column
from intaglio.finetunes.db.tables import FILES, FINETUNES, SCHEMA, STORE, VERSIONS
from intaglio.finetunes.records import Finetune, FinetuneState, FinetuneVersion, StoredFile
from intaglio.request import Verification
from intaglio.wording import shown_name

ORDER_COLUMNS = ("name", "created_at", "modified_at", "model", "id")

Clock = Callable[[], datetime]

_VALUES_PER_STATEMENT = 500
_LENGTHS_APART = 4
_MAX_LIKE = 1000  # comparing them takes some milliseconds


def utc_now() -> datetime:
    """The time now, with its zone."""
    return datetime.now(UTC)


class FinetuneRepository:
    """Finetunes of all accounts in one database: the SQLite file at `path`, or PostgreSQL if there is a URL.

    alone          no other server uses the database, so its tables may be changed
    kept_versions  versions of a finetune whose files are kept, the current one included

    Raises DataFolderError if the database cannot be used.
    """

    def __init__(
        self, path: Path, clock: Clock = utc_now, *, url: str | None = None, alone: bool = True, kept_versions: int = 2
    ) -> None:
        self._clock = clock
        self._kept_versions = kept_versions
        self._database = open_database(SCHEMA, path, url, alone=alone)

    def close(self) -> None:
        self._database.close()

    def identity(self) -> str:
        """The id of this database, made at its first use."""
        with self._database.writing() as connection:
            known = connection.scalar(sa.select(STORE.c.id))
            if known is None:
                known = str(uuid4())
                connection.execute(STORE.insert().values(id=known))
            return known

    def has_versions(self) -> bool:
        """Whether any row points to adapter files."""
        with self._database.reading() as connection:
            return connection.scalar(sa.select(VERSIONS.c.number).limit(1)) is not None

    def create(
        self, *, account: str, name: str, model: str, description: str, public: bool, max_finetunes: int
    ) -> Finetune:
        """Create a finetune without files. Raises FinetuneError if the name is taken or the account is full."""
        now = self._now()
        row = {
            "id": str(uuid4()), "account": account, "name": name, "model": model, "description": description,
            "public": public, "created_at": now, "modified_at": now, "version": 0,
            "state": FinetuneState.AWAITING_FILES.value,
        }  # fmt: skip
        with self._database.writing() as connection:
            owned = sa.select(sa.func.count()).select_from(FINETUNES).where(FINETUNES.c.account == account)
            if (connection.scalar(owned) or 0) >= max_finetunes:
                raise FinetuneError(f"account {account!r} has reached the limit of {max_finetunes} finetunes")
            try:
                connection.execute(FINETUNES.insert().values(**row))
            except IntegrityError as error:
                raise FinetuneError(f"a finetune named {name!r} already exists in this account") from error
            return read_finetunes(connection, FINETUNES.c.id == row["id"])[0]

    def find(self, account: str, name_or_id: str) -> Finetune:
        """The account's finetune of that name or id, or any account's public finetune of that id.

        Raises FinetuneNotFoundError.
        """
        with self._database.reading() as connection:
            found = read_finetunes(connection, matches(account, name_or_id))
        if not found:
            raise FinetuneNotFoundError(f"Finetune {shown_name(name_or_id)} not found")
        return found[0]

    def find_servable(self, account: str, name_or_id: str) -> Servable | None:
        """What a request needs of the finetune that `find` finds; None without finetune or current version."""
        with self._database.reading() as connection:
            return read_servable(connection, matches(account, name_or_id))

    def list_account(self, account: str) -> list[Finetune]:
        """The account's finetunes, oldest first."""
        with self._database.reading() as connection:
            return read_finetunes(connection, FINETUNES.c.account == account)

    def names_like(self, account: str, name: str) -> list[str]:
        """Names of the account's finetunes that may resemble this one: of about its length, or with it as a part."""
        if "\0" in name:  # PostgreSQL has no such text
            return []
        names = FINETUNES.c.name
        near = sa.func.length(names).between(len(name) - _LENGTHS_APART, len(name) + _LENGTHS_APART)
        is_like = (FINETUNES.c.account == account) & (near | names.contains(name, autoescape=True))
        with self._database.reading() as connection:
            return list(connection.scalars(sa.select(names).where(is_like).limit(_MAX_LIKE)))

    def list_public(self, order_by: str = "created_at", limit: int | None = None) -> list[Finetune]:
        """Every account's public finetunes, sorted by one of ORDER_COLUMNS; the first `limit` of them."""
        with self._database.reading() as connection:
            return read_finetunes(connection, FINETUNES.c.public, order_by=order_by, limit=limit)

    def begin_check(self, finetune: Finetune) -> None:
        """Record that an upload is being checked. Raises FinetuneNotFoundError if the finetune was deleted."""
        with self._database.writing() as connection:
            if not rows.update_finetune(connection, finetune.id, state=FinetuneState.CHECKING.value, reason=None):
                raise _not_found(finetune)

    def refuse(self, finetune: Finetune, name: str, reason: str) -> None:
        """Record that the upload of that name was refused, and remove the candidate's earlier file of that name.

        If the candidate's files have changed since the check began, only the check ends: another upload came meanwhile.
        A rollback meanwhile changes only the candidate's number.
        """
        with self._database.writing() as connection:
            latest = _read_by_id(connection, finetune.id)
            if latest is None or _candidate_files(latest) != _candidate_files(finetune):
                connection.execute(_end_check_update().where(FINETUNES.c.id == finetune.id))
                return
            is_candidate = (FILES.c.finetune_id == latest.id) & (FILES.c.version == latest.next_number)
            connection.execute(FILES.delete().where(is_candidate & (FILES.c.name == name)))
            state = FinetuneState.REFUSED.value
            shown = reason.replace("\0", "\\x00")
            rows.update_finetune(connection, finetune.id, state=state, reason=shown, modified_at=self._now())

    def put_candidate(self, finetune: Finetune, name: str, stored: StoredFile) -> None:
        """Make an accepted file the only file of the candidate."""
        with self._database.writing() as connection:
            _check_unchanged(connection, finetune)
            rows.put_files(connection, finetune.id, finetune.next_number, {name: stored})
            state = FinetuneState.AWAITING_FILES.value
            rows.update_finetune(connection, finetune.id, state=state, reason=None, modified_at=self._now())

    def confirm_current(self, finetune: Finetune, verification: Verification) -> None:
        """Drop the candidate, whose pair is that of the current version, and store the newer verification."""
        with self._database.writing() as connection:
            _check_unchanged(connection, finetune)
            rows.put_files(connection, finetune.id, finetune.next_number, {})
            rows.put_verification(connection, finetune.id, finetune.next_number - 1, verification)
            rows.update_finetune(connection, finetune.id, state=FinetuneState.READY.value, reason=None)

    def promote(
        self, finetune: Finetune, files: Mapping[str, StoredFile], digest: str, folder: str, verification: Verification
    ) -> None:
        """Make the verified candidate the current version, and delete versions beyond `kept_versions`."""
        with self._database.writing() as connection:
            _check_unchanged(connection, finetune)
            new = FinetuneVersion(finetune.next_number, digest, Path(folder), files, verification)
            self._make_current(connection, finetune.id, new)
            rows.update_finetune(connection, finetune.id, state=FinetuneState.READY.value, reason=None)

    def roll_back(self, finetune: Finetune, to: int | None = None) -> None:
        """Make the version before the current one, or number `to`, the current one again, under a new number.

        The candidate stays, but an upload that is being checked meanwhile is refused, as the finetune was changed.
        Raises FinetuneError if that version is not kept, FinetuneNotFoundError if the finetune was deleted.
        """
        with self._database.writing() as connection:
            latest = _read_by_id(connection, finetune.id)
            if latest is None:
                raise _not_found(finetune)
            earlier = _find_earlier(latest, to)
            rows.move_candidate(connection, latest.id, latest.next_number)
            self._make_current(connection, latest.id, replace(earlier, number=latest.next_number))

    def drop_candidate(self, finetune: Finetune) -> None:
        """Delete the files of an unfinished upload and the reason of a refused one. It has a current version.

        Raises FinetuneError if an upload came or is checked meanwhile, FinetuneNotFoundError if it was deleted.
        """
        with self._database.writing() as connection:
            _check_unchanged(connection, finetune)
            rows.put_files(connection, finetune.id, finetune.next_number, {})
            rows.update_finetune(connection, finetune.id, state=FinetuneState.READY.value, reason=None)

    def delete(self, finetune: Finetune) -> None:
        """Delete its rows: all versions and the candidate. Raises FinetuneNotFoundError if it was deleted already."""
        with self._database.writing() as connection:
            if not connection.execute(FINETUNES.delete().where(FINETUNES.c.id == finetune.id)).rowcount:
                raise _not_found(finetune)

    def end_check(self, finetune: Finetune) -> None:
        """End a check that has no result: the state follows from the rows again. Raises FinetuneNotFoundError."""
        with self._database.writing() as connection:
            if not connection.execute(_end_check_update().where(FINETUNES.c.id == finetune.id)).rowcount:
                raise _not_found(finetune)

    def end_all_checks(self) -> None:
        """End the checks that a crash left. To be called while no process runs a check."""
        with self._database.writing() as connection:
            connection.execute(_end_check_update().where(FINETUNES.c.state == FinetuneState.CHECKING.value))

    def files_of(self, finetune_id: str) -> tuple[set[str], set[str]]:
        """SHA-256 of every file, and name of every adapter folder, that a row of the finetune points to."""
        with self._database.reading() as connection:
            blobs = sa.select(FILES.c.sha256).where(FILES.c.finetune_id == finetune_id)
            folders = sa.select(VERSIONS.c.folder).where(VERSIONS.c.finetune_id == finetune_id)
            return set(connection.scalars(blobs)), set(connection.scalars(folders))

    def find_unused(self, blobs: Iterable[str], folders: Iterable[str]) -> tuple[set[str], set[str]]:
        """The files and folders among these that no row points to.

        It waits for other writers: a commit whose response was lost may still be in progress.
        """
        with self._database.writing() as connection:
            return (
                _values_not_in(connection, FILES.c.sha256, blobs),
                _values_not_in(connection, VERSIONS.c.folder, folders),
            )

    def _make_current(self, connection: sa.Connection, finetune_id: str, new: FinetuneVersion) -> None:
        now = self._now()
        rows.put_version(connection, finetune_id, new, now)
        rows.delete_versions_before(connection, finetune_id, new.number - self._kept_versions + 1)
        rows.update_finetune(connection, finetune_id, version=new.number, modified_at=now)

    def _now(self) -> datetime:
        return utc_column(self._clock())


def _end_check_update() -> sa.Update:
    """CHECKING becomes READY if there is a version and no candidate file, else AWAITING_FILES.

    Any other state is the result of another check meanwhile, and stays.
    """
    has_candidate = sa.exists().where(
        (FILES.c.finetune_id == FINETUNES.c.id) & (FILES.c.version == FINETUNES.c.version + 1)
    )
    awaiting = (FINETUNES.c.version == 0) | has_candidate
    state = sa.case(
        (FINETUNES.c.state != FinetuneState.CHECKING.value, FINETUNES.c.state),
        (awaiting, FinetuneState.AWAITING_FILES.value),
        else_=FinetuneState.READY.value,
    )
    return FINETUNES.update().values(state=state)


def _values_not_in(connection: sa.Connection, column: sa.Column[str], values: Iterable[str]) -> set[str]:
    """The values that no row has in the column."""
    absent, pending = set(values), iter(sorted(set(values)))
    while part := list(islice(pending, _VALUES_PER_STATEMENT)):
        absent -= set(connection.scalars(sa.select(column).where(column.in_(part)).distinct()))
    return absent


def _read_by_id(connection: sa.Connection, finetune_id: str) -> Finetune | None:
    return next(iter(read_finetunes(connection, FINETUNES.c.id == finetune_id)), None)


def _find_earlier(finetune: Finetune, number: int | None) -> FinetuneVersion:
    """The kept version with that number, or the last one before the current. Raises FinetuneError."""
    found = [one for one in finetune.earlier if number is None or one.number == number]
    if finetune.current is None:
        raise FinetuneError(f"finetune {finetune.name!r} has no version yet, so it cannot be rolled back")
    if not found:
        kept = ", ".join(str(one.number) for one in finetune.earlier) or "none"
        wanted = "no earlier version" if number is None else f"no earlier version {number}"
        raise FinetuneError(
            f"finetune {finetune.name!r} has {wanted} to roll back to; its current version is "
            f"{finetune.current.number}, the earlier ones that are kept: {kept}"
        )
    return found[0]


def _check_unchanged(connection: sa.Connection, before: Finetune) -> None:
    latest = _read_by_id(connection, before.id)
    if latest is None:
        raise FinetuneNotFoundError(f"Finetune {before.name} not found: it was deleted while an upload was checked")
    if (latest.next_number, _candidate_files(latest)) != (before.next_number, _candidate_files(before)):
        raise FinetuneError(f"finetune {before.name!r} was changed while an upload was checked; upload it again")


def _candidate_files(finetune: Finetune) -> Mapping[str, StoredFile]:
    return finetune.candidate.files if finetune.candidate is not None else {}


def _not_found(finetune: Finetune) -> FinetuneNotFoundError:
    return FinetuneNotFoundError(f"Finetune {finetune.name} not found")
