"""Creates or upgrades the tables of a database.

    empty                      the tables are created as they are now
    of an earlier revision     alembic runs the missing revisions
    of an unknown revision     refused: a later version, or a build before 0.1, has written it
    of another program         an SQLite file with other tables is refused; PostgreSQL databases may be shared

Everything happens in one transaction of the caller, which excludes other writers: after a crash the database has the
old tables or the new ones, and of two servers that start together the second finds the tables ready.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from intaglio.database.schema import Schema
from intaglio.errors import DataFolderError

if TYPE_CHECKING:
    from alembic.config import Config

logger = logging.getLogger(__name__)

_ENVIRONMENT = Path(__file__).parent / "alembic"


def upgrade_tables(connection: sa.Connection, schema: Schema, label: str, *, alone: bool) -> None:
    """Create or upgrade the tables. Needs a transaction that writes.

    alone  no other server uses the database: an earlier version could not read changed tables

    Raises what `check_revision` raises, and DataFolderError if the tables have to be changed and are in use.
    """
    current = check_revision(connection, schema, label)
    if current is None:
        schema.metadata.create_all(connection)
        _write_revision(connection, schema)
    elif current != schema.head:
        if not alone:
            raise DataFolderError(
                f"{label} has to be changed for this version, and a server of an earlier version uses it; stop that "
                "first"
            )
        from alembic import command  # here, since few starts change tables

        command.upgrade(_alembic_config(schema, connection), schema.head)
        logger.info("%s: tables changed from version %s to %s", label, current, schema.head)


def check_revision(connection: sa.Connection, schema: Schema, label: str) -> str | None:
    """The revision of the tables; None if the database is empty. Changes nothing.

    Raises DataFolderError if the revision is unknown, the tables are not those of the revision, or it is another
    program's SQLite file.
    """
    current = _read_revision(connection, schema)
    if current is None:
        if schema.has_tables(connection):
            raise _unknown_revision(label, "no revision", schema.head)
        if connection.dialect.name == "sqlite":
            _check_empty(connection, schema, label)
    elif current == schema.head:
        missing = schema.missing_columns(connection)
        if missing:
            raise DataFolderError(
                f"{label} was written by an unreleased build of Intaglio: its tables have revision {current!r} and no "
                f"{missing[0]}. Start the build that wrote it, or give another --data-dir or --database-url"
            )
    elif current not in _known_revisions(schema):
        raise _unknown_revision(label, f"revision {current!r}", schema.head)
    return current


def _check_empty(connection: sa.Connection, schema: Schema, label: str) -> None:
    table = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalar()
    application_id = connection.exec_driver_sql("PRAGMA application_id").scalar()
    if table is not None or application_id:
        found = f"the table {table!r}" if table is not None else f"the application_id {application_id:#x}"
        raise DataFolderError(
            f"{label} is a database of another program: it has {found} and no {schema.name}. It was not changed; move "
            "it away, or give another --data-dir"
        )


def _known_revisions(schema: Schema) -> set[str]:
    from alembic.script import ScriptDirectory  # here, since few starts find another revision

    return {script.revision for script in ScriptDirectory.from_config(_alembic_config(schema)).walk_revisions()}


def _alembic_config(schema: Schema, connection: sa.Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection, "version_table": schema.version_table})
    folders = {"script_location": _ENVIRONMENT, "version_locations": schema.revisions}
    for option, folder in folders.items():
        config.set_main_option(option, str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    return config


def _unknown_revision(label: str, found: str, head: str) -> DataFolderError:
    return DataFolderError(
        f"{label} was written by another version of Intaglio: its tables have {found}, and this version "
        f"supports up to {head!r}. Start the version that wrote it, or give another --data-dir or --database-url"
    )


def _version_table(schema: Schema) -> sa.Table:
    return sa.Table(schema.version_table, sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))


def _read_revision(connection: sa.Connection, schema: Schema) -> str | None:
    inspector, table = sa.inspect(connection), schema.version_table
    if not inspector.has_table(table) or "version_num" not in {one["name"] for one in inspector.get_columns(table)}:
        return None
    return connection.scalar(sa.select(_version_table(schema).c.version_num))


def _write_revision(connection: sa.Connection, schema: Schema) -> None:
    """Record the revision as alembic does it."""
    table = _version_table(schema)
    table.create(connection)
    connection.execute(table.insert().values(version_num=schema.head))
