"""The database of finetunes: rows in, rows out. Knows no files and checks no adapters.

All methods block and may be called from any thread; the event loop calls them through `asyncio.to_thread`. SQLite runs
in WAL mode with synchronous=FULL: when a method returns, its change survives `kill -9` and a power cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from intaglio.adapters.records import Finetune, FinetuneState, StoredFile
from intaglio.adapters.tables import FILES, FINETUNES, METADATA
from intaglio.errors import FinetuneError, FinetuneNotFoundError

ORDER_COLUMNS = ("name", "created_at", "modified_at", "model", "id")


class Catalogue:
    """Finetunes of all accounts in one database."""

    def __init__(self, path: Path) -> None:
        self._engine = _open_sqlite(path)
        METADATA.create_all(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    def create(
        self, *, account: str, name: str, model: str, description: str, public: bool, max_finetunes: int
    ) -> Finetune:
        """A new finetune without files. Raises FinetuneError if the name is taken or the account is full."""
        now = _now()
        row = {
            "id": str(uuid4()), "account": account, "name": name, "model": model, "description": description,
            "public": public, "created_at": now, "modified_at": now, "state": FinetuneState.AWAITING_FILES.value,
        }  # fmt: skip
        with self._write() as connection:
            owned = sa.select(sa.func.count()).select_from(FINETUNES).where(FINETUNES.c.account == account)
            if (connection.scalar(owned) or 0) >= max_finetunes:
                raise FinetuneError(f"account {account!r} has {max_finetunes} finetunes, the most that are allowed")
            try:
                connection.execute(FINETUNES.insert().values(**row))
            except IntegrityError as error:
                raise FinetuneError(f"a finetune named {name!r} already exists in this account") from error
            return self._read_one(connection, FINETUNES.c.id == row["id"], name)

    def find(self, account: str, name_or_id: str) -> Finetune:
        """The account's finetune of that name or id, or anyone's public one of that id.

        Raises FinetuneNotFoundError. Another account's public finetune is found by id alone, so that nobody can
        come before a name by publishing it first.
        """
        mine = (FINETUNES.c.account == account) & ((FINETUNES.c.name == name_or_id) | (FINETUNES.c.id == name_or_id))
        theirs = FINETUNES.c.public & (FINETUNES.c.id == name_or_id)
        with self._engine.connect() as connection:
            return self._read_one(connection, mine | theirs, name_or_id)

    def list_account(self, account: str) -> list[Finetune]:
        """The account's finetunes, oldest first."""
        with self._engine.connect() as connection:
            return self._read(connection, FINETUNES.c.account == account)

    def list_public(self) -> list[Finetune]:
        """Every account's public finetunes, oldest first."""
        with self._engine.connect() as connection:
            return self._read(connection, FINETUNES.c.public)

    def set_state(self, finetune_id: str, state: FinetuneState, reason: str | None = None) -> None:
        with self._write() as connection:
            self._update(connection, finetune_id, state=state.value, reason=reason)

    def add_file(self, finetune_id: str, name: str, stored: StoredFile) -> None:
        """Record a good file of a finetune whose other file is still missing."""
        with self._write() as connection:
            self._put_file(connection, finetune_id, name, stored)
            self._update(connection, finetune_id, state=FinetuneState.AWAITING_FILES.value, reason=None)

    def make_ready(self, finetune_id: str, name: str, stored: StoredFile, digest: str, folder: str) -> None:
        """Record the last file and the checked adapter in one transaction."""
        ready = FinetuneState.READY.value
        with self._write() as connection:
            self._put_file(connection, finetune_id, name, stored)
            self._update(connection, finetune_id, state=ready, reason=None, digest=digest, folder=folder)

    def recover(self) -> None:
        """After a crash: a check that was under way never ended."""
        with self._write() as connection:
            connection.execute(
                FINETUNES.update()
                .where(FINETUNES.c.state == FinetuneState.CHECKING.value)
                .values(state=FinetuneState.AWAITING_FILES.value)
            )

    def kept_blobs(self) -> set[str]:
        """SHA-256 of every file that a row points to."""
        with self._engine.connect() as connection:
            return set(connection.scalars(sa.select(FILES.c.sha256)))

    def kept_folders(self) -> set[str]:
        """Name of every adapter folder that a row points to."""
        with self._engine.connect() as connection:
            return set(connection.scalars(sa.select(FINETUNES.c.folder).where(FINETUNES.c.folder.is_not(None))))

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        # BEGIN IMMEDIATE: count-then-insert must not run between another writer's count and insert.
        with self._engine.connect().execution_options(write=True) as connection, connection.begin():
            yield connection

    def _put_file(self, connection: sa.Connection, finetune_id: str, name: str, stored: StoredFile) -> None:
        connection.execute(FILES.delete().where((FILES.c.finetune_id == finetune_id) & (FILES.c.name == name)))
        row = {"sha256": stored.sha256, "size_bytes": stored.size_bytes}
        connection.execute(FILES.insert().values(finetune_id=finetune_id, name=name, **row))

    def _update(self, connection: sa.Connection, finetune_id: str, **values: Any) -> None:
        connection.execute(FINETUNES.update().where(FINETUNES.c.id == finetune_id).values(modified_at=_now(), **values))

    def _read_one(self, connection: sa.Connection, where: sa.ColumnElement[bool], asked: str) -> Finetune:
        found = self._read(connection, where)
        if not found:
            raise FinetuneNotFoundError(f"Finetune {asked} not found")
        return found[0]

    def _read(self, connection: sa.Connection, where: sa.ColumnElement[bool]) -> list[Finetune]:
        rows = connection.execute(
            sa.select(FINETUNES).where(where).order_by(FINETUNES.c.created_at, FINETUNES.c.id)
        ).all()
        files = connection.execute(sa.select(FILES).where(FILES.c.finetune_id.in_([row.id for row in rows]))).all()
        return [_finetune(row, [file for file in files if file.finetune_id == row.id]) for row in rows]


def _finetune(row: sa.Row[Any], files: Sequence[sa.Row[Any]]) -> Finetune:
    return Finetune(
        id=row.id,
        account=row.account,
        name=row.name,
        model=row.model,
        description=row.description,
        public=row.public,
        created_at=row.created_at.replace(tzinfo=UTC),
        modified_at=row.modified_at.replace(tzinfo=UTC),
        state=FinetuneState(row.state),
        reason=row.reason,
        digest=row.digest,
        folder=Path(row.folder) if row.folder else None,
        files={file.name: StoredFile(file.sha256, file.size_bytes) for file in files},
    )


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)  # SQLite keeps no time zone: all columns are UTC


def _open_sqlite(path: Path) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 10.0})

    @sa.event.listens_for(engine, "connect")
    def _on_connect(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None  # we say BEGIN ourselves, below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            dbapi_connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
