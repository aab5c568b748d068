"""The two tables of the catalogue. Times are UTC without a zone; states are the values of FinetuneState."""

from __future__ import annotations

import sqlalchemy as sa

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
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("digest", sa.String(64)),
    sa.Column("folder", sa.String(64)),  # name within the store's adapters folder
    sa.UniqueConstraint("account", "name"),
)

FILES = sa.Table(
    "finetune_files",
    METADATA,
    sa.Column("finetune_id", sa.ForeignKey("finetunes.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
)
