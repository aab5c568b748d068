"""How a database gets the tables of this version.

    empty                               the tables are made as they are now
    an SQLite file from before alembic  `Schema.adopt` brings it to a revision, then as the next
    of an earlier revision              alembic runs the revisions that it lacks
    of an unknown revision              refused: a later version has written it

All of it happens in the one transaction of the caller, which locks other writers out: after a crash the database is old
or new and nothing between, and of two servers that start together the second finds the work done.
"""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa

from intaglio.database.schema import Schema
from intaglio.errors import DataFolderError

logger = logging.getLogger(__name__)

# In user_version of every SQLite file that alembic looks after. Versions from before alembic know 1 and refuse more.
NUMBER_OF_ALEMBIC = 2

_ENVIRONMENT = Path(__file__).parent / "alembic"


def bring_up_to_date(connection: sa.Connection, schema: Schema, label: str, *, alone: bool) -> None:
    """Make or change the tables. Needs a transaction that writes.

    alone  no other server uses the database: one of an earlier version could not read changed tables

    Raises DataFolderError if a later version has written the database, or if it has to be changed and is in use.
    """
    number = _sqlite_number(connection)
    if number > NUMBER_OF_ALEMBIC:
        raise _written_later(label, str(number), str(NUMBER_OF_ALEMBIC))
    current = _revision(connection, schema)
    if current == schema.head:
        return
    if current is None and not schema.has_tables(connection):
        schema.metadata.create_all(connection)
        _stamp(connection, schema, schema.head)
        return
    _upgrade(connection, schema, current, label, number=number, alone=alone)


def _upgrade(
    connection: sa.Connection, schema: Schema, current: str | None, label: str, *, number: int, alone: bool
) -> None:
    from alembic import command  # here, since few starts change anything
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection, "version_table": schema.version_table})
    folders = {"script_location": _ENVIRONMENT, "version_locations": schema.revisions}
    for option, folder in folders.items():
        config.set_main_option(option, str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise _written_later(label, current, schema.head)
    if not alone:
        raise DataFolderError(
            f"{label} has to be changed for this version, and a server of an earlier one uses it; stop that first"
        )
    if current is None:
        current = schema.adopt(connection, number)
        _stamp(connection, schema, current)
    if current != schema.head:
        command.upgrade(config, schema.head)
        logger.info("%s: tables changed from version %s to %s", label, current, schema.head)


def _written_later(label: str, version: str, known: str) -> DataFolderError:
    return DataFolderError(
        f"{label} was written by a later Intaglio: its tables have version {version}, and this one knows versions up "
        f"to {known}. Start the later one, or give another --data-dir or --database-url"
    )


def _sqlite_number(connection: sa.Connection) -> int:
    """What SQLite keeps for a version of the tables; 0 where none was set, and on PostgreSQL."""
    if connection.dialect.name != "sqlite":
        return 0
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def _version_table(schema: Schema) -> sa.Table:
    return sa.Table(schema.version_table, sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))


def _revision(connection: sa.Connection, schema: Schema) -> str | None:
    if not sa.inspect(connection).has_table(schema.version_table):
        return None
    return connection.scalar(sa.select(_version_table(schema).c.version_num))


def _stamp(connection: sa.Connection, schema: Schema, revision: str) -> None:
    """As alembic does it."""
    table = _version_table(schema)
    table.create(connection)
    connection.execute(table.insert().values(version_num=revision))
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version = {NUMBER_OF_ALEMBIC}")
