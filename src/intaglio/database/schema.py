"""The declaration of a package's tables, from which a database is created, upgraded or refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one package.

    name       of the content, for error messages and the version table: "finetunes"
    metadata   the tables as this version has them
    head       the alembic revision of `metadata`: the last one in `revisions`
    revisions  folder of alembic revisions, one file per change of the tables
    lock_key   number of the advisory lock that serializes the writers of these tables on PostgreSQL
    """

    name: str
    metadata: sa.MetaData
    head: str
    revisions: Path
    lock_key: int

    @property
    def version_table(self) -> str:
        """The table with alembic's revision: one per schema, since on PostgreSQL schemas share a database."""
        return f"{self.name}_version"

    def missing_columns(self, connection: sa.Connection) -> list[str]:
        """The columns that the database does not have, as table.column."""
        inspector = sa.inspect(connection)
        found: set[tuple[str, str]] = set()
        for table in set(self.metadata.tables) & set(inspector.get_table_names()):
            found |= {(table, column["name"]) for column in inspector.get_columns(table)}
        return [
            f"{table.name}.{column.name}"
            for table in self.metadata.sorted_tables
            for column in table.columns
            if (table.name, column.name) not in found
        ]

    def has_tables(self, connection: sa.Connection) -> bool:
        """Whether the database has any of these tables."""
        return not set(self.metadata.tables).isdisjoint(sa.inspect(connection).get_table_names())
