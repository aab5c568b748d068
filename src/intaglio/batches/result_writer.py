"""Commits results in groups: those that arrive while a group is being written are the next group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from intaglio.batches.records import Batch, ItemResult
from intaglio.batches.store import BatchStore
from intaglio.errors import DatabaseError, StorageFullError

logger = logging.getLogger(__name__)

RETRY_S = 5.0  # a full disk does not empty at once


class ResultWriter:
    """Commits results; calls `on_finished` for each batch whose last result is committed."""

    def __init__(self, store: BatchStore, on_finished: Callable[[Batch], None]) -> None:
        self._store = store
        self._on_finished = on_finished
        self._pending: list[ItemResult] = []
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()

    def put(self, result: ItemResult) -> None:
        self._pending.append(result)
        self._wake.set()

    def close(self) -> None:
        """Make `run` return once everything is written."""
        self._closing.set()
        self._wake.set()

    async def run(self) -> None:
        """Write until closed. A failed write is retried; after `close` it is not, and the items run again later."""
        while self._pending or not self._closing.is_set():
            await self._wake.wait()
            self._wake.clear()
            if self._pending and not await self._write_all():
                if self._closing.is_set():
                    return
                await self._pause()

    async def _write_all(self) -> bool:
        group, self._pending = self._pending, []
        try:
            finished = await asyncio.to_thread(self._store.finish, group)
        except (DatabaseError, StorageFullError) as error:
            logger.error("%d batch results cannot be written yet: %s", len(group), error)
            self._pending = group + self._pending
            return False
        for batch in finished:
            self._on_finished(batch)
        return True

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), RETRY_S)
        self._wake.set()
