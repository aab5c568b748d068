"""What a package declares about its tables, so that a database can be created, upgraded or refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one package.

    what       the content, named in error messages: "finetunes"
    metadata   the tables as this version has them
    head       the alembic revision of `metadata`: the last one in `revisions`
    revisions  folder of alembic revisions, one file per change of the tables
    lock_key   number of the advisory lock that serializes the writers of these tables on PostgreSQL
    """

    what: str
    metadata: sa.MetaData
    head: str
    revisions: Path
    lock_key: int

    @property
    def version_table(self) -> str:
        """The table with alembic's revision: one per schema, since on PostgreSQL schemas share a database."""
        return f"{self.what}_version"

    def has_tables(self, connection: sa.Connection) -> bool:
        """Whether the database has any of these tables."""
        return not set(self.metadata.tables).isdisjoint(sa.inspect(connection).get_table_names())
