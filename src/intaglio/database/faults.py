"""Converts what SQLAlchemy and the drivers raise when a database fails into our errors."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from intaglio.errors import DatabaseError, IntaglioError, StorageFullError

logger = logging.getLogger(__name__)

_FULL_SQLSTATE = "53100"  # PostgreSQL's disk_full
# The second is raised when the index of the write-ahead log does not fit on the disk.
_FULL_SQLITE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
# Faults of the database, not of our statements. exc.DatabaseError itself means that a file is not a database.
_UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.InternalError)


@contextmanager
def faults_as_errors(name: str) -> Iterator[None]:
    """Raise DatabaseError or StorageFullError if the database fails in the block, and log the driver's message.

    That message names hosts, users and paths, which the sender of a request must not see.

    name  of the content, for messages
    """
    try:
        yield
    except exc.SQLAlchemyError as error:
        converted = _to_intaglio_error(error, name)
        if converted is None:
            raise
        logger.error("the database of %s: %s", name, driver_message(error))
        raise converted from error


def driver_message(error: exc.SQLAlchemyError) -> str:
    """The driver's message, without the statement and its values."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    return " ".join(str(cause).split())


def _to_intaglio_error(error: exc.SQLAlchemyError, name: str) -> IntaglioError | None:
    if isinstance(error, exc.DBAPIError) and _is_full(error.orig):
        return StorageFullError()
    is_lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
    if is_lost or isinstance(error, (*_UNAVAILABLE, exc.TimeoutError)) or type(error) is exc.DatabaseError:
        return DatabaseError(f"the database of {name} does not respond; try again in a moment")
    return None


def _is_full(fault: BaseException | None) -> bool:
    if isinstance(fault, sqlite3.Error):
        return getattr(fault, "sqlite_errorcode", None) in _FULL_SQLITE
    return getattr(fault, "sqlstate", None) == _FULL_SQLSTATE
