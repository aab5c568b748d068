"""The tables of batches. Times are seconds since 1970.

A changed table needs a new revision in `revisions`, named in HEAD.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from intaglio.database import Schema

HEAD = "first"

METADATA = sa.MetaData()

BATCHES = sa.Table(
    "batches",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),  # ascending: the older batch has the smaller number
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("account", sa.String(64), nullable=False),
    sa.Column("model", sa.String(256), nullable=False),
    sa.Column("shared", sa.LargeBinary, nullable=False),
    sa.Column("num_items", sa.Integer, nullable=False),
    sa.Column("num_done", sa.Integer, nullable=False, default=0),
    sa.Column("num_failed", sa.Integer, nullable=False, default=0),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False, default=0),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False, default=0),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False, default=0),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),  # of its requests; of its responses once it is finished
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float, index=True),
    sqlite_autoincrement=True,  # a number is never reused
)

ITEMS = sa.Table(
    "batch_items",
    METADATA,
    sa.Column("batch", sa.ForeignKey("batches.number", ondelete="CASCADE"), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True),
    sa.Column("request", sa.LargeBinary),  # NULL once the item has run
    sa.Column("response", sa.LargeBinary),  # NULL until the item has run
    sa.Column("answered_by", sa.String(256)),  # NULL if the batch's own model ran it
)


SCHEMA = Schema(
    name="batches",
    metadata=METADATA,
    head=HEAD,
    revisions=Path(__file__).parent / "revisions",
    lock_key=0x17A6_0002,
)
