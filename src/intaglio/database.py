"""Opening an SQLite database of the data folder: durable, with the tables that its owner sees to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from intaglio.errors import DataFolderError


def open_sqlite(path: Path, *, what: str, prepare: Callable[[sa.Connection], None]) -> sa.Engine:
    """In WAL mode with synchronous=FULL: what was committed survives `kill -9` and a power cut.

    what     is kept in it, for the error's sentence
    prepare  makes the tables or changes those of an earlier version, in one transaction

    Raises DataFolderError if the file is no database, and whatever `prepare` raises.
    """
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 10.0})
    sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin)
    try:
        with writing(engine) as connection:
            prepare(connection)
    except DatabaseError as error:
        engine.dispose()
        raise DataFolderError(f"{path} cannot be used as the database of {what}: {error.orig}") from error
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that writes, and that no other writer comes between the reads and writes of."""
    with engine.connect().execution_options(write=True) as connection, connection.begin():
        yield connection


def tables_version(connection: sa.Connection, path: Path, known: int) -> int:
    """The number that SQLite keeps for the version of the tables; 0 where none was set.

    Raises DataFolderError if it is above `known`: a later version has written the database.
    """
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if version > known:
        raise DataFolderError(
            f"{path} was written by a later Intaglio: its tables have version {version}, and this one knows versions "
            f"up to {known}. Start the later one, or give another --data-dir"
        )
    return version


def set_tables_version(connection: sa.Connection, version: int) -> None:
    connection.exec_driver_sql(f"PRAGMA user_version = {version}")


def _on_connect(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # we say BEGIN ourselves, below
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        dbapi_connection.execute(f"PRAGMA {pragma}").close()


def _on_begin(connection: sa.Connection) -> None:
    # BEGIN IMMEDIATE: count-then-insert must not run between another writer's count and insert.
    writes = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
