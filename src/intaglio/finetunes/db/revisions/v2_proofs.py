"""A generation has a proof, the database has an id, and thousands of rows are found quickly."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "proofs"
down_revision = "generations"


def upgrade() -> None:
    op.add_column("finetune_generations", sa.Column("proof", sa.Text))
    op.create_table("finetune_store", sa.Column("id", sa.String(36), primary_key=True))
    op.create_index("finetunes_public", "finetunes", ["public"])
    op.create_index("finetune_generations_folder", "finetune_generations", ["folder"])
    op.create_index("finetune_files_sha256", "finetune_files", ["sha256"])
