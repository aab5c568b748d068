"""The tables of 0.1."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "first"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "finetunes",
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
    op.create_table(
        "finetune_versions",
        sa.Column("finetune_id", _sortable(36), sa.ForeignKey("finetunes.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("folder", sa.String(64), nullable=False),
        sa.Column("ready_at", sa.DateTime, nullable=False),
        sa.Column("verification", sa.Text, nullable=False),
        sa.Index("finetune_versions_folder", "folder"),
    )
    op.create_table(
        "finetune_files",
        sa.Column("finetune_id", _sortable(36), sa.ForeignKey("finetunes.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("uploaded_at", sa.DateTime, nullable=False),
        sa.Index("finetune_files_sha256", "sha256"),
    )
    op.create_table("finetune_store", sa.Column("id", sa.String(36), primary_key=True))


def _sortable(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
