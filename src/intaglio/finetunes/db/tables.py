"""The tables of finetunes, as this version writes them. Times are UTC without a zone.

finetunes.version         number of the current version; 0 before the first
finetunes.state, .reason  those of the candidate; 'ready' if there is no candidate
finetune_versions         versions whose files are kept: the current one and some before it
finetune_files            their files, and those of the candidate under the next number
finetune_store            one row: the id of this database, which is also in its data folder

A changed table needs a new revision in `revisions`, named in HEAD.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from intaglio.database import Schema

HEAD = "first"

METADATA = sa.MetaData()


def _sortable(length: int) -> sa.String:
    """Text that sorts by code point everywhere, as Python and SQLite sort it."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


FINETUNES = sa.Table(
    "finetunes",
    METADATA,
    sa.Column("id", _sortable(36), primary_key=True),
    sa.Column("account", sa.String(64), nullable=False),
    sa.Column("name", _sortable(128), nullable=False),
    sa.Column("model", _sortable(256), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("public", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("modified_at", sa.DateTime, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text),
    sa.UniqueConstraint("account", "name"),
    sa.Index("finetunes_public", "public"),
)

VERSIONS = sa.Table(
    "finetune_versions",
    METADATA,
    sa.Column("finetune_id", sa.ForeignKey("finetunes.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("folder", sa.String(64), nullable=False),  # name within the store's adapters folder
    sa.Column("ready_at", sa.DateTime, nullable=False),
    sa.Column("verification", sa.Text, nullable=False),  # JSON
    sa.Index("finetune_versions_folder", "folder"),
)

FILES = sa.Table(
    "finetune_files",
    METADATA,
    sa.Column("finetune_id", sa.ForeignKey("finetunes.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("uploaded_at", sa.DateTime, nullable=False),
    sa.Index("finetune_files_sha256", "sha256"),
)

STORE = sa.Table("finetune_store", METADATA, sa.Column("id", sa.String(36), primary_key=True))

SCHEMA = Schema(
    name="finetunes",
    metadata=METADATA,
    head=HEAD,
    revisions=Path(__file__).parent / "revisions",
    lock_key=0x17A6_0001,
)
