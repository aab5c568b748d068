"""SQLAlchemy engines for SQLite and PostgreSQL: durable commits, and a lost database is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

LOCK_TIMEOUT_S = 10.0  # how long a writer waits for the previous writer
CONNECT_TIMEOUT_S = 5


def sqlite_engine(path: Path) -> sa.Engine:
    """In WAL mode with synchronous=FULL: what was committed survives `kill -9` and a power cut.

    The file must exist. Each transaction checks that it is still the file that was opened: a connection would go on
    writing to a file that was moved or replaced.
    """
    engine = sa.create_engine(
        _sqlite_url(path, mode="rw"), connect_args={"timeout": LOCK_TIMEOUT_S}, pool_timeout=LOCK_TIMEOUT_S
    )

    def on_connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # BEGIN is sent by on_begin below
        try:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}").close()
        except BaseException:
            connection.close()  # SQLAlchemy 2.0 would leave the file open
            raise
        record.info["file"] = _identity(path)

    def on_checkout(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info["file"] != _identity(path):
            raise sa.exc.DisconnectionError(f"{path} is not the file that was opened")

    def on_begin(connection: sa.Connection) -> None:
        # BEGIN IMMEDIATE: count-then-insert must not run between another writer's count and insert.
        writes = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    for event, listener in (("connect", on_connect), ("checkout", on_checkout), ("begin", on_begin)):
        sa.event.listen(engine, event, listener)
    return engine


def untouched_sqlite_engine(path: Path) -> sa.Engine:
    """Reads the file as it lies there: it is not changed, not locked, and no -wal or -shm file appears beside it.

    Does not read the write-ahead log. A statement may fail while another process writes the file.
    """
    return sa.create_engine(_sqlite_url(path, mode="ro", immutable="1"), poolclass=sa.pool.NullPool)


def _sqlite_url(path: Path, **options: str) -> sa.URL:
    return sa.URL.create("sqlite", database=f"file:{quote(str(path))}", query={**options, "uri": "true"})


def postgresql_engine(url: str) -> sa.Engine:
    """A connection that the server has dropped is replaced before its next use (pool_pre_ping).

    Raises ImportError without the driver.
    """
    from intaglio.database.connection import ConnectionWithTimeout  # here, since SQLite needs no driver

    parsed = sa.make_url(url)
    defaults = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "tcp_user_timeout": 1000 * int(LOCK_TIMEOUT_S),
        "application_name": "intaglio",
        "client_encoding": "utf8",  # a database in SQL_ASCII would hand out bytes
    }
    given = {key: value for key, value in defaults.items() if key not in parsed.query}
    engine = sa.create_engine(parsed, connect_args=given, pool_pre_ping=True, pool_timeout=LOCK_TIMEOUT_S)

    def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> ConnectionWithTimeout:
        return ConnectionWithTimeout.connect(*arguments, **options)

    sa.event.listen(engine, "do_connect", connect)
    return engine


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file at this path; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
