"""A version has a verification, the database has an id, and thousands of rows are found quickly."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "verifications"
down_revision = "versions"


def upgrade() -> None:
    op.add_column("finetune_versions", sa.Column("verification", sa.Text))
    op.create_table("finetune_store", sa.Column("id", sa.String(36), primary_key=True))
    op.create_index("finetunes_public", "finetunes", ["public"])
    op.create_index("finetune_versions_folder", "finetune_versions", ["folder"])
    op.create_index("finetune_files_sha256", "finetune_files", ["sha256"])
