"""Opening the database of a schema: SQLite in the data folder, or PostgreSQL, with the tables of this version."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from intaglio.database.database import Database
from intaglio.database.engines import postgresql_engine, sqlite_engine, untouched_sqlite_engine
from intaglio.database.faults import driver_message
from intaglio.database.migration import check_revision, upgrade_tables
from intaglio.database.schema import Schema
from intaglio.errors import DatabaseError, DataFolderError, SettingsError, StorageFullError


def open_database(schema: Schema, path: Path, url: str | None, *, alone: bool = True) -> Database:
    """The database at a PostgreSQL URL, or without one the SQLite file at `path`, which is created if missing.

    alone  no other server uses it, so its tables may be changed

    Raises DataFolderError if it cannot be used, SettingsError if the URL is invalid or its driver is not installed. No
    message contains the URL, which may hold a password.
    """
    label = str(path) if url is None else "the database at database_url"
    engine = _checked_sqlite_engine(path, schema) if url is None else _checked_postgresql_engine(url)
    database = Database(engine, schema.name, schema.lock_key)
    try:
        with database.writing() as connection:
            if url is not None:
                _check_encoding(connection, label)
            upgrade_tables(connection, schema, label, alone=alone)
    except (DatabaseError, StorageFullError, SQLAlchemyError) as error:
        engine.dispose()
        raise DataFolderError(
            f"{label} cannot be used as the database of {schema.name}: {_cause_text(error)}"
        ) from error
    except BaseException:
        engine.dispose()
        raise
    return database


def _checked_sqlite_engine(path: Path, schema: Schema) -> sa.Engine:
    try:
        with path.open("ab"):  # creates it; an empty file is an empty database
            pass
    except OSError as error:
        raise DataFolderError(f"{path} cannot be used as a database: {error.strerror}") from error
    _check_untouched(path, schema)
    return sqlite_engine(path)


def _check_untouched(path: Path, schema: Schema) -> None:
    """Refuse a file of another version or program before it is opened for writing, which turns it to WAL mode."""
    # What else is wrong with the file is reported when it is opened for writing.
    with (
        contextlib.suppress(SQLAlchemyError, sqlite3.Error, OSError),
        _as_last_written(path) as file,
        untouched_sqlite_engine(file).connect() as connection,
    ):
        check_revision(connection, schema, str(path))


@contextlib.contextmanager
def _as_last_written(path: Path) -> Iterator[Path]:
    """The file, or if a write-ahead log lies beside it, as after a crash, a copy into which that was written back."""
    log = path.with_name(f"{path.name}-wal")
    if not log.exists() or log.stat().st_size == 0:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        shutil.copy(path, copy)
        shutil.copy(log, Path(folder) / log.name)
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # writes the log back
        yield copy


def _checked_postgresql_engine(url: str) -> sa.Engine:
    try:
        if "@" in (sa.make_url(url).host or ""):  # of a password, which messages about the host would show
            raise SettingsError("database_url has more than one @; in a user or password it is written %40")
        return postgresql_engine(url)
    except ImportError as error:
        raise SettingsError(
            "database_url needs a driver that is not installed: pip install 'intaglio[postgresql]'"
        ) from error
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ValueError):
        # Neither the cause nor its text: both may quote the URL.
        raise SettingsError("database_url is not a valid URL; its form is postgresql://user@host:5432/name") from None


def _check_encoding(connection: sa.Connection, label: str) -> None:
    """SQL_ASCII holds whatever bytes the client sends, which are UTF-8; see postgresql_engine."""
    encoding = connection.scalar(sa.text("SHOW server_encoding"))
    if encoding not in {"UTF8", "SQL_ASCII"}:
        raise DataFolderError(
            f"{label} is encoded in {encoding}, which cannot hold every text; create it with ENCODING 'UTF8'"
        )


def _cause_text(error: Exception) -> str:
    if isinstance(error, StorageFullError):
        return str(error)
    cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
    return driver_message(cause) if isinstance(cause, SQLAlchemyError) else str(error)
