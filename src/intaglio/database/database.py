"""An open database with read and write transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from intaglio.database.engines import LOCK_TIMEOUT_S
from intaglio.database.faults import faults_as_errors


class Database:
    """The database of one schema. Methods may be called from any thread.

    name      of the content, for error messages
    lock_key  number of the advisory lock that its writers acquire on PostgreSQL

    Transactions raise DatabaseError when the database does not respond, StorageFullError when its disk is full, and are
    rolled back; later ones work again once the database is back.
    """

    def __init__(self, engine: sa.Engine, name: str, lock_key: int) -> None:
        self._engine = engine
        self._name = name
        self._lock_key = lock_key

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, and sees one state of the database from its first statement to its last."""
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with faults_as_errors(self._name), self._engine.connect() as connection:
            connection.execution_options(**options)
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that writes; no other writer runs between its reads and its writes.

        SQLite has BEGIN IMMEDIATE for this. On PostgreSQL it is an advisory lock, acquired before anything is read and
        held to the end of the commit, with READ COMMITTED, so that each statement sees what earlier writers have
        committed (a snapshot would be made before the lock is acquired). Serializable transactions would let
        writers run concurrently, but may fail and need a retry, which a `with` block cannot do.
        """
        with faults_as_errors(self._name), self._engine.connect() as connection:
            connection.execution_options(write=True)
            with connection.begin():
                if not self.is_sqlite:
                    connection.exec_driver_sql(
                        f"SET LOCAL lock_timeout = '{1000 * LOCK_TIMEOUT_S:.0f}ms'; SET LOCAL synchronous_commit = on; "
                        f"SELECT pg_advisory_xact_lock({self._lock_key})",
                        execution_options={"no_parameters": True},  # several statements at once
                    )
                yield connection
