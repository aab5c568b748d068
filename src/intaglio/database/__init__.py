"""Durable databases: an SQLite file in the data folder, or PostgreSQL by URL.

A package declares its tables and their revisions in a `Schema` and gets a `Database` with read and write transactions.
Faults of a database are raised as errors of Intaglio, never as SQLAlchemy's. Does not know the tables.

    opening     opens the `database` of a `schema` by path or URL
    engines     SQLAlchemy engines for SQLite and PostgreSQL; `connection` adds timeouts to the latter
    migration   creates and upgrades tables; `alembic` has its environment
    faults      converts errors of the drivers to errors of Intaglio
"""

from __future__ import annotations

from intaglio.database.database import Database
from intaglio.database.opening import open_database
from intaglio.database.schema import Schema

__all__ = ["Database", "Schema", "open_database"]
