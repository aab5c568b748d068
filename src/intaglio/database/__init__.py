"""Databases that keep what was committed: an SQLite file of the data folder, or PostgreSQL by URL.

A room that keeps rows says in a `Schema` which tables it has and how those of earlier versions become them; it gets a
`Database` with transactions that read and transactions that write. What is wrong with a database comes out as one of
our errors, never as one of SQLAlchemy's.

    opening     from a room's `schema` and a path or URL to a `database`
    engines     how the two kinds are set up
    patience    how long an answer of PostgreSQL is waited for
    migrating   how their tables come up to date; `alembic` holds what it runs
    faults      what their drivers raise, as our errors
"""

from __future__ import annotations

from intaglio.database.database import Database
from intaglio.database.opening import open_database
from intaglio.database.schema import Schema

__all__ = ["Database", "Schema", "open_database"]
