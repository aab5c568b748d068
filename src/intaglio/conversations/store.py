"""Responses in a database: stored when they end, found by their id, removed when they are old or too many.

All methods block and may be called from any thread and from several servers with the same database. When a method
returns, its change survives `kill -9`. All raise DatabaseError while the database does not respond, and
StorageFullError when its disk is full; a change is then made completely or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from intaglio.conversations.tables import RESPONSES, SCHEMA
from intaglio.database import open_database
from intaglio.errors import RequestTooLargeError, ResponseNotFoundError


@dataclass(frozen=True, slots=True)
class ResponseLimits:
    """retention_s: how long a response is kept. max_bytes: of all responses; beyond it the oldest are removed."""

    retention_s: float
    max_bytes: int


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """response: as it was sent. conversation: all its messages, its own output the last. Both are JSON."""

    response: bytes
    conversation: bytes


class ResponseStore:
    """The stored responses of all accounts, in the SQLite file at `path`, or in PostgreSQL if there is a URL.

    clock  seconds since 1970

    Raises DataFolderError if the database cannot be used.
    """

    def __init__(
        self,
        path: Path,
        limits: ResponseLimits,
        clock: Callable[[], float] = time.time,
        *,
        database_url: str | None = None,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.limits = limits
        self._clock = clock
        self._database = open_database(SCHEMA, path, database_url)

    def close(self) -> None:
        self._database.close()

    def add(self, account: str, response_id: str, stored: StoredResponse) -> None:
        """Store a response, and remove those that are beyond the limits.

        Raises RequestTooLargeError for one that alone is larger than all together may be.
        """
        size, now = len(stored.response) + len(stored.conversation), self._clock()
        if size > self.limits.max_bytes:
            raise RequestTooLargeError(
                f"the response and its conversation have {size} bytes, more than the limit of {self.limits.max_bytes} "
                "for stored responses; send 'store': false"
            )
        row = {
            "id": response_id, "account": account, "created_at": now, "size_bytes": size,
            "response": stored.response, "conversation": stored.conversation,
        }  # fmt: skip
        with self._database.writing() as connection:
            connection.execute(RESPONSES.insert().values(**row))
            connection.execute(RESPONSES.delete().where(self._is_expired(now)))
            _remove_oldest(connection, self.limits.max_bytes)

    def find(self, account: str, response_id: str) -> StoredResponse:
        """The account's response of that id. Raises ResponseNotFoundError, also when it was removed."""
        columns = sa.select(RESPONSES.c.response, RESPONSES.c.conversation)
        with self._database.reading() as connection:
            row = connection.execute(columns.where(self._is_response(account, response_id))).one_or_none()
        if row is None:
            raise self._not_found(response_id)
        return StoredResponse(row.response, row.conversation)

    def delete(self, account: str, response_id: str) -> None:
        """Remove a response; those that continued it stay. Raises ResponseNotFoundError."""
        with self._database.writing() as connection:
            if not connection.execute(RESPONSES.delete().where(self._is_response(account, response_id))).rowcount:
                raise self._not_found(response_id)

    def _is_response(self, account: str, response_id: str) -> sa.ColumnElement[bool]:
        if "\0" in response_id:  # PostgreSQL has no such text
            return sa.false()
        is_named = (RESPONSES.c.id == response_id) & (RESPONSES.c.account == account)
        return is_named & ~self._is_expired(self._clock())

    def _is_expired(self, now: float) -> sa.ColumnElement[bool]:
        return RESPONSES.c.created_at <= now - self.limits.retention_s

    def _not_found(self, response_id: str) -> ResponseNotFoundError:
        return ResponseNotFoundError(
            f"Response {response_id[:64]!r} not found: it was not stored, was deleted, is older than "
            f"{self.limits.retention_s:.0f} s, or made room for newer ones"
        )


def _remove_oldest(connection: sa.Connection, max_bytes: int) -> None:
    """Remove the oldest responses until all together have at most `max_bytes`."""
    columns = RESPONSES.c
    total = connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(columns.size_bytes), 0))) or 0
    if total <= max_bytes:
        return
    newest_removed = None
    for row in connection.execute(sa.select(columns.number, columns.size_bytes).order_by(columns.number)):
        newest_removed, total = row.number, total - row.size_bytes
        if total <= max_bytes:
            break
    connection.execute(RESPONSES.delete().where(columns.number <= newest_removed))
