"""SQLAlchemy engines for the two kinds of database, so that what is committed stays and what is gone is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

LOCK_WAIT_S = 10.0  # how long a writer waits for the one before
CONNECT_S = 5


def sqlite_engine(path: Path) -> sa.Engine:
    """In WAL mode with synchronous=FULL: what was committed survives `kill -9` and a power cut.

    The file has to be there. One that was moved away or replaced is noticed at the next transaction: an open connection
    would go on writing into a file that has no name any more.
    """
    url = sa.URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": "rw", "uri": "true"})
    engine = sa.create_engine(url, connect_args={"timeout": LOCK_WAIT_S}, pool_timeout=LOCK_WAIT_S)

    def on_connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
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


def postgresql_engine(url: str) -> sa.Engine:
    """A connection that the server has dropped is replaced when it is next needed (pool_pre_ping).

    Raises ImportError without the driver.
    """
    from intaglio.database.patience import PatientConnection  # here, since SQLite needs no driver

    parsed = sa.make_url(url)
    defaults = {
        "connect_timeout": CONNECT_S,
        "tcp_user_timeout": 1000 * int(LOCK_WAIT_S),
        "application_name": "intaglio",
    }
    given = {key: value for key, value in defaults.items() if key not in parsed.query}
    engine = sa.create_engine(parsed, connect_args=given, pool_pre_ping=True, pool_timeout=LOCK_WAIT_S)

    def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> PatientConnection:
        return PatientConnection.connect(*arguments, **options)

    sa.event.listen(engine, "do_connect", connect)
    return engine


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name now; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
