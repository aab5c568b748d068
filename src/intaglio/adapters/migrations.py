"""How a database of an earlier version gets the tables of this one.

SQLite keeps a number for this, user_version. A database that has finetunes and no number is from before numbers were
kept. Each step is a list of statements that stays as it is for ever, whatever `tables` becomes later; all steps that
are needed run in one transaction, so after a crash the database is old or new and nothing between.
"""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa

from intaglio.adapters.tables import METADATA, SCHEMA_VERSION
from intaglio.database import set_tables_version, tables_version
from intaglio.errors import DataFolderError

logger = logging.getLogger(__name__)

# To version 1: generations. Every file there is belongs to generation 1, current or to be. The old tables are renamed
# and dropped, children first, since SQLite cannot change a primary key and dropping a parent would empty its children.
_GENERATIONS = (
    "ALTER TABLE finetune_files RENAME TO old_finetune_files",
    "ALTER TABLE finetunes RENAME TO old_finetunes",
    """CREATE TABLE finetunes (
        id VARCHAR(36) NOT NULL PRIMARY KEY, account VARCHAR(64) NOT NULL, name VARCHAR(128) NOT NULL,
        model VARCHAR(256) NOT NULL, description TEXT NOT NULL, public BOOLEAN NOT NULL,
        created_at DATETIME NOT NULL, modified_at DATETIME NOT NULL, generation INTEGER NOT NULL,
        state VARCHAR(16) NOT NULL, reason TEXT, UNIQUE (account, name))""",
    """CREATE TABLE finetune_generations (
        finetune_id VARCHAR(36) NOT NULL REFERENCES finetunes (id) ON DELETE CASCADE, number INTEGER NOT NULL,
        digest VARCHAR(64) NOT NULL, folder VARCHAR(64) NOT NULL, ready_at DATETIME NOT NULL,
        PRIMARY KEY (finetune_id, number))""",
    """CREATE TABLE finetune_files (
        finetune_id VARCHAR(36) NOT NULL REFERENCES finetunes (id) ON DELETE CASCADE, generation INTEGER NOT NULL,
        name VARCHAR(64) NOT NULL, sha256 VARCHAR(64) NOT NULL, size_bytes BIGINT NOT NULL,
        uploaded_at DATETIME NOT NULL, PRIMARY KEY (finetune_id, generation, name))""",
    """INSERT INTO finetunes SELECT id, account, name, model, description, public, created_at, modified_at,
        CASE state WHEN 'ready' THEN 1 ELSE 0 END, state, reason FROM old_finetunes""",
    """INSERT INTO finetune_generations
        SELECT id, 1, digest, folder, modified_at FROM old_finetunes WHERE state = 'ready'""",
    """INSERT INTO finetune_files SELECT finetune_id, 1, old_finetune_files.name, sha256, size_bytes, modified_at
        FROM old_finetune_files JOIN old_finetunes ON old_finetunes.id = finetune_id""",
    "DROP TABLE old_finetune_files",
    "DROP TABLE old_finetunes",
)

STEPS = (_GENERATIONS,)  # STEPS[v] leads from version v to v + 1


def bring_up_to_date(connection: sa.Connection, path: Path, *, alone: bool) -> None:
    """Make the tables in an empty database, or change those of an earlier one. Needs a transaction that writes.

    alone  no other server uses the data folder: one of the earlier version could not read the changed tables

    Raises DataFolderError if a later version has written the database, or if it has to be changed and is in use.
    """
    version = tables_version(connection, path, SCHEMA_VERSION)
    if version == SCHEMA_VERSION:
        return
    if sa.inspect(connection).has_table("finetunes"):
        if not alone:
            raise DataFolderError(
                f"{path} has to be changed for this version, and a server of an earlier one uses it; stop that first"
            )
        for step in STEPS[version:]:
            for statement in step:
                connection.exec_driver_sql(statement)
        logger.info("%s: tables changed from version %d to %d", path, version, SCHEMA_VERSION)
    else:
        METADATA.create_all(connection)
    set_tables_version(connection, SCHEMA_VERSION)
