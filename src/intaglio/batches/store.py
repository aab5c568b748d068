"""Batches in a database: accepted, run item by item, stored for the retention time, removed.

All methods block and may be called from any thread and from several servers with the same database; the event loop
calls them through `asyncio.to_thread`. When a method returns, its change survives `kill -9`. All raise DatabaseError
while the database does not respond, and StorageFullError when its disk is full; a change is then made completely or
not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from intaglio.batches.records import Batch, BatchLimits, BatchState, Item, ItemKey, ItemResult, TokenCounts
from intaglio.batches.tables import BATCHES, ITEMS, SCHEMA
from intaglio.database import open_database
from intaglio.errors import BadInputError, BatchNotFoundError, BatchQueueFullError, RequestTooLargeError


class BatchStore:
    """The batches of all accounts, in the SQLite file at `path`, or in PostgreSQL if there is a URL.

    clock  seconds since 1970

    Raises DataFolderError if the database cannot be used.
    """

    def __init__(
        self,
        path: Path,
        limits: BatchLimits,
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

    # -- for the routes that submit and poll

    def add(self, account: str, model: str, requests: Sequence[bytes], shared: bytes) -> Batch:
        """Accept a batch. Raises BadInputError or RequestTooLargeError if it is larger than any batch may be, and
        BatchQueueFullError if it does not fit beside the batches that are there.
        """
        size = len(shared) + sum(map(len, requests))
        self._check_size(len(requests), size)
        row = {
            "id": str(uuid4()), "account": account, "model": model, "shared": shared,
            "num_items": len(requests), "size_bytes": size, "created_at": self._clock(),
        }  # fmt: skip
        with self._database.writing() as connection:
            self._check_capacity(connection, len(requests), size)
            inserted = connection.execute(BATCHES.insert().values(**row)).inserted_primary_key
            assert inserted is not None
            items = [{"batch": inserted[0], "place": place, "request": text} for place, text in enumerate(requests)]
            connection.execute(ITEMS.insert(), items)
            return _batch(connection.execute(sa.select(BATCHES).where(BATCHES.c.number == inserted[0])).one())

    def find(self, account: str, batch_id: str) -> Batch:
        """The account's batch of that id. Raises BatchNotFoundError, also when its results were removed."""
        with self._database.reading() as connection:
            return _batch(self._find(connection, account, batch_id))

    def responses(self, account: str, batch_id: str) -> list[bytes]:
        """The responses of a finished batch, in the order of its requests. Raises BatchNotFoundError."""
        with self._database.reading() as connection:
            row = self._find(connection, account, batch_id)
            responses = sa.select(ITEMS.c.response).where(ITEMS.c.batch == row.number).order_by(ITEMS.c.place)
            return [response for response in connection.scalars(responses) if response is not None]

    def answered_by(self, account: str, batch_id: str) -> list[str]:
        """The models that stood in for the batch's when its items ran, by name. Raises BatchNotFoundError."""
        with self._database.reading() as connection:
            row = self._find(connection, account, batch_id)
            models = sa.select(ITEMS.c.answered_by).where(ITEMS.c.batch == row.number).distinct()
            return sorted(model for model in connection.scalars(models) if model is not None)

    def num_open_items(self) -> int:
        """Items without a result, of all batches."""
        missing = sa.func.coalesce(sa.func.sum(BATCHES.c.num_items - BATCHES.c.num_done), 0)
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(missing).where(BATCHES.c.finished_at.is_(None))).scalar_one())

    # -- for the runner

    def open_batches(self, after: int = 0) -> list[Batch]:
        """Batches that are not finished and have a larger number than `after`, oldest first."""
        is_open = BATCHES.c.finished_at.is_(None) & (BATCHES.c.number > after)
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(BATCHES).where(is_open).order_by(BATCHES.c.number))
            return [_batch(row) for row in rows]

    def open_places(self, batch_id: str) -> list[int]:
        """Places of the batch's items without a result, ascending."""
        is_open = (ITEMS.c.batch == _number_of(batch_id)) & ITEMS.c.response.is_(None)
        with self._database.reading() as connection:
            return list(connection.scalars(sa.select(ITEMS.c.place).where(is_open).order_by(ITEMS.c.place)))

    def begin(self, key: ItemKey) -> Item:
        """Start an item, which must have no result yet; its batch is running from now on."""
        joined = sa.select(ITEMS.c.request, BATCHES).join(BATCHES, BATCHES.c.number == ITEMS.c.batch)
        with self._database.reading() as connection:
            row = connection.execute(joined.where((BATCHES.c.id == key.batch_id) & (ITEMS.c.place == key.place))).one()
        if row.started_at is None:
            with self._database.writing() as connection:
                connection.execute(
                    BATCHES.update().where(BATCHES.c.id == key.batch_id).values(started_at=self._clock())
                )
        return Item(key, row.account, row.model, row.request, row.shared)

    def finish(self, results: Sequence[ItemResult]) -> list[Batch]:
        """Commit results, all in one transaction. Returns the batches whose last result is among them.

        Only the first result of an item is stored.
        """
        finished, now = [], self._clock()
        by_batch = groupby(sorted(results, key=lambda result: result.key), key=lambda result: result.key.batch_id)
        with self._database.writing() as connection:
            for batch_id, group in by_batch:
                stored = [result for result in group if _store_response(connection, result)]
                if stored and (batch := _add_to_totals(connection, batch_id, stored, now)).state is BatchState.FINISHED:
                    finished.append(batch)
        return finished

    def expire(self) -> int:
        """Remove the responses of batches whose retention time is over. Returns the number of batches.

        The batch's row stays for the same time again, so that the error for a late request can say why.
        """
        now = self._clock()
        is_expired = (BATCHES.c.finished_at <= now - self.limits.retention_s) & (BATCHES.c.size_bytes > 0)
        is_forgotten = BATCHES.c.finished_at <= now - 2 * self.limits.retention_s
        with self._database.writing() as connection:
            connection.execute(ITEMS.delete().where(ITEMS.c.batch.in_(sa.select(BATCHES.c.number).where(is_expired))))
            num_expired = connection.execute(BATCHES.update().where(is_expired).values(size_bytes=0)).rowcount
            connection.execute(BATCHES.delete().where(is_forgotten))
        return num_expired

    def _check_size(self, num_items: int, size_bytes: int) -> None:
        max_items = min(self.limits.max_items, self.limits.max_open_items)
        if num_items > max_items:
            raise BadInputError(f"the batch has {num_items} requests, more than the limit of {max_items}")
        if size_bytes > self.limits.max_bytes:
            raise RequestTooLargeError(
                f"the batch has {size_bytes} bytes, more than the limit of {self.limits.max_bytes}"
            )

    def _check_capacity(self, connection: sa.Connection, num_items: int, size_bytes: int) -> None:
        unfinished = sa.case((BATCHES.c.finished_at.is_(None), BATCHES.c.num_items - BATCHES.c.num_done), else_=0)
        sums = sa.select(sa.func.sum(unfinished), sa.func.sum(BATCHES.c.size_bytes))
        open_items, used_bytes = (value or 0 for value in connection.execute(sums).one())
        if open_items + num_items > self.limits.max_open_items:
            raise BatchQueueFullError(
                f"{open_items} batch items wait or run; {num_items} more would exceed the limit of "
                f"{self.limits.max_open_items}"
            )
        if used_bytes + size_bytes > self.limits.max_bytes:
            raise BatchQueueFullError(
                f"batches hold {used_bytes} bytes; {size_bytes} more would exceed the limit of "
                f"{self.limits.max_bytes}. Finished batches are removed after {self.limits.retention_s:.0f} s"
            )

    def _find(self, connection: sa.Connection, account: str, batch_id: str) -> sa.Row[Any]:
        is_batch = (BATCHES.c.id == batch_id) & (BATCHES.c.account == account)
        row = None
        if "\0" not in batch_id:  # PostgreSQL cannot store it in a text
            row = connection.execute(sa.select(BATCHES).where(is_batch)).one_or_none()
        if row is None:
            raise BatchNotFoundError(f"Batch {batch_id[:64]} not found")
        if row.finished_at is not None and row.finished_at <= self._clock() - self.limits.retention_s:
            raise BatchNotFoundError(
                f"Batch {batch_id} was finished more than {self.limits.retention_s:.0f} s ago: its results were removed"
            )
        return row


def _add_to_totals(connection: sa.Connection, batch_id: str, results: Sequence[ItemResult], now: float) -> Batch:
    """Add results to the totals in the batch's row; the last result finishes the batch."""
    columns, is_batch = BATCHES.c, BATCHES.c.id == batch_id
    sums = {
        columns.num_done: len(results),
        columns.num_failed: sum(not result.success for result in results),
        columns.prompt_tokens: sum(result.tokens.prompt for result in results),
        columns.completion_tokens: sum(result.tokens.completion for result in results),
        columns.cached_tokens: sum(result.tokens.cached for result in results),
    }
    connection.execute(
        BATCHES.update().where(is_batch).values({column: column + added for column, added in sums.items()})
    )
    size = sa.select(sa.func.sum(sa.func.length(ITEMS.c.response))).where(ITEMS.c.batch == _number_of(batch_id))
    connection.execute(
        BATCHES.update()
        .where(is_batch & (columns.num_done == columns.num_items))
        .values(finished_at=now, size_bytes=size.scalar_subquery())
    )
    return _batch(connection.execute(sa.select(BATCHES).where(is_batch)).one())


def _number_of(batch_id: str) -> sa.ScalarSelect[int]:
    return sa.select(BATCHES.c.number).where(BATCHES.c.id == batch_id).scalar_subquery()


def _store_response(connection: sa.Connection, result: ItemResult) -> bool:
    """Store the item's response and drop its request. False if the item has a response already."""
    is_item = (ITEMS.c.batch == _number_of(result.key.batch_id)) & (ITEMS.c.place == result.key.place)
    stored = {"response": result.response, "answered_by": result.answered_by, "request": None}
    update = ITEMS.update().where(is_item & ITEMS.c.response.is_(None)).values(stored)
    return connection.execute(update).rowcount == 1


def _batch(row: sa.Row[Any]) -> Batch:
    if row.finished_at is not None:
        state = BatchState.FINISHED
    else:
        state = BatchState.QUEUED if row.started_at is None else BatchState.RUNNING
    return Batch(
        number=row.number,
        id=row.id,
        account=row.account,
        model=row.model,
        state=state,
        num_items=row.num_items,
        num_done=row.num_done,
        num_failed=row.num_failed,
        tokens=TokenCounts(row.prompt_tokens, row.completion_tokens, row.cached_tokens),
        duration_s=None if row.finished_at is None else row.finished_at - row.created_at,
    )
