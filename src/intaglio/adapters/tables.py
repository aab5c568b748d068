"""The tables of the catalogue, as this version writes them. Times are UTC without a zone.

finetunes.generation      the generation that answers; 0 before the first
finetunes.state, .reason  the candidate's; 'ready' when there is none
finetune_generations      those whose files are kept: the current one and the one before it
finetune_files            the files of these, and under the next number those of the candidate

Whoever changes a table raises SCHEMA_VERSION and says in `migrations` how a database gets there.
"""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA_VERSION = 1

METADATA = sa.MetaData()

FINETUNES = sa.Table(
    "finetunes",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("account", sa.String(64), nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("model", sa.String(256), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("public", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("modified_at", sa.DateTime, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text),
    sa.UniqueConstraint("account", "name"),
)

GENERATIONS = sa.Table(
    "finetune_generations",
    METADATA,
    sa.Column("finetune_id", sa.ForeignKey("finetunes.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("folder", sa.String(64), nullable=False),  # name within the store's adapters folder
    sa.Column("ready_at", sa.DateTime, nullable=False),
)

FILES = sa.Table(
    "finetune_files",
    METADATA,
    sa.Column("finetune_id", sa.ForeignKey("finetunes.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("uploaded_at", sa.DateTime, nullable=False),
)
