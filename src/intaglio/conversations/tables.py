"""The table of stored responses. Times are seconds since 1970.

A changed table needs a new revision in `revisions`, named in HEAD.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from intaglio.database import Schema

HEAD = "first"

METADATA = sa.MetaData()

RESPONSES = sa.Table(
    "responses",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),  # ascending: the older response has the smaller number
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("account", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False, index=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False, index=True),  # of the two texts; the index makes sums cheap
    sa.Column("response", sa.LargeBinary, nullable=False),
    sa.Column("conversation", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,  # a number is never reused
)


SCHEMA = Schema(
    name="responses",
    metadata=METADATA,
    head=HEAD,
    revisions=Path(__file__).parent / "revisions",
    lock_key=0x17A6_0003,
)
