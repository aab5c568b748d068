"""SQLite files from before alembic looked after the tables.

SQLite keeps a number for this, user_version. A database that has finetunes and no number is from before numbers were
kept. The statements stay as they are for ever, whatever `tables` becomes later.
"""

from __future__ import annotations

import sqlalchemy as sa

# To version 1: versions. Every file there is belongs to version 1, current or to be. The old tables are renamed
# and dropped, children first, since SQLite cannot change a primary key and dropping a parent would empty its children.
_GENERATIONS = (
    "ALTER TABLE finetune_files RENAME TO old_finetune_files",
    "ALTER TABLE finetunes RENAME TO old_finetunes",
    """CREATE TABLE finetunes (
        id VARCHAR(36) NOT NULL PRIMARY KEY, account VARCHAR(64) NOT NULL, name VARCHAR(128) NOT NULL,
        model VARCHAR(256) NOT NULL, description TEXT NOT NULL, public BOOLEAN NOT NULL,
        created_at DATETIME NOT NULL, modified_at DATETIME NOT NULL, version INTEGER NOT NULL,
        state VARCHAR(16) NOT NULL, reason TEXT, UNIQUE (account, name))""",
    """CREATE TABLE finetune_versions (
        finetune_id VARCHAR(36) NOT NULL REFERENCES finetunes (id) ON DELETE CASCADE, number INTEGER NOT NULL,
        digest VARCHAR(64) NOT NULL, folder VARCHAR(64) NOT NULL, ready_at DATETIME NOT NULL,
        PRIMARY KEY (finetune_id, number))""",
    """CREATE TABLE finetune_files (
        finetune_id VARCHAR(36) NOT NULL REFERENCES finetunes (id) ON DELETE CASCADE, version INTEGER NOT NULL,
        name VARCHAR(64) NOT NULL, sha256 VARCHAR(64) NOT NULL, size_bytes BIGINT NOT NULL,
        uploaded_at DATETIME NOT NULL, PRIMARY KEY (finetune_id, version, name))""",
    """INSERT INTO finetunes SELECT id, account, name, model, description, public, created_at, modified_at,
        CASE state WHEN 'ready' THEN 1 ELSE 0 END, state, reason FROM old_finetunes""",
    """INSERT INTO finetune_versions
        SELECT id, 1, digest, folder, modified_at FROM old_finetunes WHERE state = 'ready'""",
    """INSERT INTO finetune_files SELECT finetune_id, 1, old_finetune_files.name, sha256, size_bytes, modified_at
        FROM old_finetune_files JOIN old_finetunes ON old_finetunes.id = finetune_id""",
    "DROP TABLE old_finetune_files",
    "DROP TABLE old_finetunes",
)


def adopt(connection: sa.Connection, number: int) -> str:
    """Bring a database with this number to the first revision of `revisions`, and return that."""
    if number == 0:
        for statement in _GENERATIONS:
            connection.exec_driver_sql(statement)
    return "versions"
