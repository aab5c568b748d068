"""The finetunes in the database: rows in, records out. Knows no files and checks no adapters.

All methods block and may be called from any thread; the event loop calls them through `asyncio.to_thread`. When one
returns, its change survives `kill -9` and a power cut. Those that follow a check take the finetune as it was when the
check began, and raise if it has been deleted or changed since.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from intaglio.adapters.clock import Clock, utc_now
from intaglio.adapters.migrations import bring_up_to_date
from intaglio.adapters.records import Finetune, FinetuneState, StoredFile
from intaglio.adapters.rows import read_finetunes, utc_column
from intaglio.adapters.tables import FILES, FINETUNES, GENERATIONS
from intaglio.database import open_sqlite, writing
from intaglio.errors import FinetuneError, FinetuneNotFoundError

ORDER_COLUMNS = ("name", "created_at", "modified_at", "model", "id")


class Catalogue:
    """Finetunes of all accounts in one database. Raises DataFolderError if it cannot be used.

    alone  nobody else uses the database, so that the tables of an earlier version may be changed
    """

    def __init__(self, path: Path, clock: Clock = utc_now, *, alone: bool = True) -> None:
        self._clock = clock
        self._engine = open_sqlite(
            path, what="finetunes", prepare=lambda writer: bring_up_to_date(writer, path, alone=alone)
        )

    def close(self) -> None:
        self._engine.dispose()

    def create(
        self, *, account: str, name: str, model: str, description: str, public: bool, max_finetunes: int
    ) -> Finetune:
        """A new finetune without files. Raises FinetuneError if the name is taken or the account is full."""
        now = utc_column(self._clock())
        row = {
            "id": str(uuid4()), "account": account, "name": name, "model": model, "description": description,
            "public": public, "created_at": now, "modified_at": now, "generation": 0,
            "state": FinetuneState.AWAITING_FILES.value,
        }  # fmt: skip
        with writing(self._engine) as connection:
            owned = sa.select(sa.func.count()).select_from(FINETUNES).where(FINETUNES.c.account == account)
            if (connection.scalar(owned) or 0) >= max_finetunes:
                raise FinetuneError(f"account {account!r} has {max_finetunes} finetunes, the most that are allowed")
            try:
                connection.execute(FINETUNES.insert().values(**row))
            except IntegrityError as error:
                raise FinetuneError(f"a finetune named {name!r} already exists in this account") from error
            return read_finetunes(connection, FINETUNES.c.id == row["id"])[0]

    def find(self, account: str, name_or_id: str) -> Finetune:
        """The account's finetune of that name or id, or anyone's public one of that id.

        Raises FinetuneNotFoundError. Another account's public finetune is found by id alone, so that nobody can
        come before a name by publishing it first.
        """
        mine = (FINETUNES.c.account == account) & ((FINETUNES.c.name == name_or_id) | (FINETUNES.c.id == name_or_id))
        theirs = FINETUNES.c.public & (FINETUNES.c.id == name_or_id)
        with self._engine.begin() as connection:
            found = read_finetunes(connection, mine | theirs)
        if not found:
            raise FinetuneNotFoundError(f"Finetune {name_or_id} not found")
        return found[0]

    def list_account(self, account: str) -> list[Finetune]:
        """The account's finetunes, oldest first."""
        with self._engine.begin() as connection:
            return read_finetunes(connection, FINETUNES.c.account == account)

    def list_public(self) -> list[Finetune]:
        """Every account's public finetunes, oldest first."""
        with self._engine.begin() as connection:
            return read_finetunes(connection, FINETUNES.c.public)

    def begin_check(self, finetune: Finetune) -> None:
        """An upload is being checked. Raises FinetuneNotFoundError if the finetune was deleted."""
        with writing(self._engine) as connection:
            if not self._update(connection, finetune, state=FinetuneState.CHECKING.value, reason=None):
                raise FinetuneNotFoundError(f"Finetune {finetune.name} not found")

    def refuse(self, finetune: Finetune, name: str, reason: str) -> None:
        """The upload of that name was bad. An earlier one of the name, which it was to replace, goes too.

        A finetune that was deleted or changed since the check began stays as it is: the number that the bad file would
        have had may by now be that of the generation that answers.
        """
        with writing(self._engine) as connection:
            if not _is_unchanged(_read(connection, finetune.id), finetune):
                return
            candidate = (FILES.c.finetune_id == finetune.id) & (FILES.c.generation == finetune.next_number)
            connection.execute(FILES.delete().where(candidate & (FILES.c.name == name)))
            self._update(
                connection, finetune, state=FinetuneState.REFUSED.value, reason=reason, modified_at=self._now()
            )

    def put_candidate(self, finetune: Finetune, name: str, stored: StoredFile) -> None:
        """A good file, and the only one of the candidate."""
        with writing(self._engine) as connection:
            self._check_unchanged(connection, finetune)
            self._put_files(connection, finetune, {name: stored})
            state = FinetuneState.AWAITING_FILES.value
            self._update(connection, finetune, state=state, reason=None, modified_at=self._now())

    def drop_candidate(self, finetune: Finetune) -> None:
        """The candidate turned out to be what answers already."""
        with writing(self._engine) as connection:
            self._check_unchanged(connection, finetune)
            self._put_files(connection, finetune, {})
            self._update(connection, finetune, state=FinetuneState.READY.value, reason=None)

    def promote(self, finetune: Finetune, files: Mapping[str, StoredFile], digest: str, folder: str) -> None:
        """The candidate is proven: from this commit on it answers. Of the generations before, the last one is kept."""
        number, now = finetune.next_number, self._now()
        with writing(self._engine) as connection:
            self._check_unchanged(connection, finetune)
            self._put_files(connection, finetune, files)
            row = {"number": number, "digest": digest, "folder": folder, "ready_at": now}
            connection.execute(GENERATIONS.insert().values(finetune_id=finetune.id, **row))
            for table, column in ((GENERATIONS, GENERATIONS.c.number), (FILES, FILES.c.generation)):
                connection.execute(table.delete().where((table.c.finetune_id == finetune.id) & (column < number - 1)))
            ready = FinetuneState.READY.value
            self._update(connection, finetune, state=ready, reason=None, generation=number, modified_at=now)

    def delete(self, finetune: Finetune) -> None:
        """Its rows go, all generations and the candidate. Raises FinetuneNotFoundError if they were gone already."""
        with writing(self._engine) as connection:
            if not connection.execute(FINETUNES.delete().where(FINETUNES.c.id == finetune.id)).rowcount:
                raise FinetuneNotFoundError(f"Finetune {finetune.name} not found")

    def settle(self, finetune: Finetune) -> None:
        """A check came to no end: the state is again what the rows say. Raises FinetuneNotFoundError if deleted."""
        with writing(self._engine) as connection:
            if not connection.execute(_settled().where(FINETUNES.c.id == finetune.id)).rowcount:
                raise FinetuneNotFoundError(f"Finetune {finetune.name} not found")

    def settle_all(self) -> None:
        """After a crash: no check is under way."""
        with writing(self._engine) as connection:
            connection.execute(_settled().where(FINETUNES.c.state == FinetuneState.CHECKING.value))

    def kept_blobs(self, finetune_id: str | None = None) -> set[str]:
        """SHA-256 of every file that a row points to, or a row of one finetune."""
        with self._engine.begin() as connection:
            where = sa.true() if finetune_id is None else FILES.c.finetune_id == finetune_id
            return set(connection.scalars(sa.select(FILES.c.sha256).where(where)))

    def kept_folders(self, finetune_id: str | None = None) -> set[str]:
        """Name of every adapter folder that a row points to, or a row of one finetune."""
        with self._engine.begin() as connection:
            where = sa.true() if finetune_id is None else GENERATIONS.c.finetune_id == finetune_id
            return set(connection.scalars(sa.select(GENERATIONS.c.folder).where(where)))

    def _check_unchanged(self, connection: sa.Connection, before: Finetune) -> None:
        now = _read(connection, before.id)
        if now is None:
            raise FinetuneNotFoundError(f"Finetune {before.name} not found: it was deleted while an upload was checked")
        if not _is_unchanged(now, before):
            raise FinetuneError(f"finetune {before.name!r} was changed while an upload was checked; upload it again")

    def _put_files(self, connection: sa.Connection, finetune: Finetune, files: Mapping[str, StoredFile]) -> None:
        """The candidate has these files and no others."""
        number = finetune.next_number
        connection.execute(FILES.delete().where((FILES.c.finetune_id == finetune.id) & (FILES.c.generation == number)))
        for name, stored in files.items():
            row = {"sha256": stored.sha256, "size_bytes": stored.size_bytes}
            uploaded_at = utc_column(stored.uploaded_at)
            connection.execute(
                FILES.insert().values(
                    finetune_id=finetune.id, generation=number, name=name, uploaded_at=uploaded_at, **row
                )
            )

    def _update(self, connection: sa.Connection, finetune: Finetune, **values: Any) -> int:
        return connection.execute(FINETUNES.update().where(FINETUNES.c.id == finetune.id).values(**values)).rowcount

    def _now(self) -> datetime:
        return utc_column(self._clock())


def _settled() -> sa.Update:
    """READY or AWAITING_FILES, as there is a generation and no candidate beside it, or not."""
    has_candidate = sa.exists().where(
        (FILES.c.finetune_id == FINETUNES.c.id) & (FILES.c.generation == FINETUNES.c.generation + 1)
    )
    awaiting = (FINETUNES.c.generation == 0) | has_candidate
    state = sa.case((awaiting, FinetuneState.AWAITING_FILES.value), else_=FinetuneState.READY.value)
    return FINETUNES.update().values(state=state)


def _read(connection: sa.Connection, finetune_id: str) -> Finetune | None:
    return next(iter(read_finetunes(connection, FINETUNES.c.id == finetune_id)), None)


def _is_unchanged(now: Finetune | None, before: Finetune) -> bool:
    """Whether the finetune still has the generation and the candidate's files that it had."""
    if now is None:
        return False
    return (now.next_number, _candidate_files(now)) == (before.next_number, _candidate_files(before))


def _candidate_files(finetune: Finetune) -> Mapping[str, StoredFile]:
    return finetune.candidate.files if finetune.candidate is not None else {}
