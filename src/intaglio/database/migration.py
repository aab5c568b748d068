"""Creates or upgrades the tables of a database.

    empty                      the tables are created as they are now
    of an earlier revision     alembic runs the missing revisions
    of an unknown revision     refused: a later version, or a build before 0.1, has written it

Everything happens in one transaction of the caller, which excludes other writers: after a crash the database has the
old tables or the new ones, and of two servers that start together the second finds the tables ready.
"""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa

from intaglio.database.schema import Schema
from intaglio.errors import DataFolderError

logger = logging.getLogger(__name__)

_ENVIRONMENT = Path(__file__).parent / "alembic"


def upgrade_tables(connection: sa.Connection, schema: Schema, label: str, *, alone: bool) -> None:
    """Create or upgrade the tables. Needs a transaction that writes.

    alone  no other server uses the database: an earlier version could not read changed tables

    Raises DataFolderError if the revision is unknown, or if the tables have to be changed and are in use.
    """
    current = _revision(connection, schema)
    if current == schema.head:
        return
    if current is None:
        if schema.has_tables(connection):
            raise _unknown(label, "no revision", schema.head)
        schema.metadata.create_all(connection)
        _stamp(connection, schema)
        return
    _run_revisions(connection, schema, current, label, alone=alone)


def _run_revisions(connection: sa.Connection, schema: Schema, current: str, label: str, *, alone: bool) -> None:
    from alembic import command  # here, since few starts change tables
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection, "version_table": schema.version_table})
    folders = {"script_location": _ENVIRONMENT, "version_locations": schema.revisions}
    for option, folder in folders.items():
        config.set_main_option(option, str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current not in known:
        raise _unknown(label, f"revision {current!r}", schema.head)
    if not alone:
        raise DataFolderError(
            f"{label} has to be changed for this version, and a server of an earlier version uses it; stop that first"
        )
    command.upgrade(config, schema.head)
    logger.info("%s: tables changed from version %s to %s", label, current, schema.head)


def _unknown(label: str, found: str, head: str) -> DataFolderError:
    return DataFolderError(
        f"{label} was written by another version of Intaglio: its tables have {found}, and this version "
        f"supports up to {head!r}. Start the version that wrote it, or give another --data-dir or --database-url"
    )


def _version_table(schema: Schema) -> sa.Table:
    return sa.Table(schema.version_table, sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))


def _revision(connection: sa.Connection, schema: Schema) -> str | None:
    if not sa.inspect(connection).has_table(schema.version_table):
        return None
    return connection.scalar(sa.select(_version_table(schema).c.version_num))


def _stamp(connection: sa.Connection, schema: Schema) -> None:
    """Record the revision as alembic does it."""
    table = _version_table(schema)
    table.create(connection)
    connection.execute(table.insert().values(version_num=schema.head))
