"""The table of 0.1."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "first"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "responses",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False, index=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False, index=True),
        sa.Column("response", sa.LargeBinary, nullable=False),
        sa.Column("conversation", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
