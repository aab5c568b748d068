"""What a room says of its tables, so that a database can be made, taken over or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one room.

    what       is kept in them, for the sentences of errors
    metadata   the tables as this version has them
    head       the revision that `metadata` is; the last of those in `revisions`
    revisions  folder of alembic revisions, one file per change of the tables
    adopt      brings an SQLite file from before alembic, with tables and this number in user_version, to a revision and
               returns that
    lock_key   a number of its own: on PostgreSQL writers of one room wait for each other by it
    """

    what: str
    metadata: sa.MetaData
    head: str
    revisions: Path
    adopt: Callable[[sa.Connection, int], str]
    lock_key: int

    @property
    def version_table(self) -> str:
        """Where alembic keeps the revision: each room its own, since on PostgreSQL they share a database."""
        return f"{self.what}_version"

    def has_tables(self, connection: sa.Connection) -> bool:
        """Whether any table of this room is there."""
        return not set(self.metadata.tables).isdisjoint(sa.inspect(connection).get_table_names())
