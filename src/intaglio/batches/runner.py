"""Runs batches in the background: a set number of items at a time for each model, results committed as they come.

    database --poll--> lane of a model --fair queue--> running items --> result writer --> database

Nothing is lost when the process is killed: an item is unfinished until its result is committed, and unfinished items
run again. A result is committed once, however often an item ran.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from intaglio.batches.claims import ModelClaims
from intaglio.batches.fair_queue import FairQueue, QueuedItem
from intaglio.batches.records import Batch, Item, ItemKey, ItemResult
from intaglio.batches.result_writer import ResultWriter
from intaglio.batches.store import BatchStore
from intaglio.errors import CapacityError, DatabaseError, EngineError, IntaglioError, StorageFullError

logger = logging.getLogger(__name__)

MAX_TRIES = 3  # runs of an item whose engine fails
POLL_INTERVAL_S = 5.0  # another server on the same data folder may have accepted a batch, or ended
EXPIRE_EVERY_S = 60.0


class ItemWork(Protocol):
    """Runs an item. The runner itself does not know prompts or models."""

    async def run(self, item: Item) -> ItemResult:
        """Run an item. After CapacityError or DatabaseError it is run again later; after EngineError too, at most
        MAX_TRIES times. Any other IntaglioError is the item's result.
        """

    def error_result(self, item: Item, error: IntaglioError) -> ItemResult:
        """The error as the item's result."""


@dataclass(slots=True)
class _Lane:
    """The work on one model.

    batches  ids of the batches that are started and not finished
    tries    engine failures of each item
    paused   no item is started until `_resume`
    """

    model: str
    queue: FairQueue = field(default_factory=FairQueue)
    batches: set[str] = field(default_factory=set)
    running: set[asyncio.Task[None]] = field(default_factory=set)
    tries: Counter[ItemKey] = field(default_factory=Counter)
    paused: bool = False


class BatchRunner:
    """One server's runner.

    models       ids of the models it serves. Batches of other models that are open at the start end with an error for
                 each item; later ones belong to another server on the same data folder
    max_running  items of one model that run at once
    added        an event that is set when a batch was accepted
    retry_s      how long a model's items wait when there is no capacity
    """

    def __init__(
        self,
        store: BatchStore,
        claims: ModelClaims,
        work: ItemWork,
        *,
        models: Collection[str],
        max_running: int,
        added: asyncio.Event,
        retry_s: float = 1.0,
    ) -> None:
        self._store = store
        self._claims = claims
        self._work = work
        self._models = models
        self._max_running = max_running
        self._added = added
        self._retry_s = retry_s
        self._lanes: dict[str, _Lane] = {}
        self._writer = ResultWriter(store, self._on_batch_finished)
        self._loop_tasks: list[asyncio.Task[None]] = []
        self._writer_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the background tasks; unfinished items of a previous process run first."""
        self._writer_task = asyncio.create_task(self._writer.run(), name="batch-results")
        self._loop_tasks = [
            asyncio.create_task(self._poll_batches(), name="batch-poll"),
            asyncio.create_task(self._expire_results(), name="batch-expiry"),
        ]

    async def stop(self) -> None:
        """Cancel the running items, which stay unfinished, and write the results that are complete."""
        running = [task for lane in self._lanes.values() for task in lane.running]
        self._lanes.clear()
        for task in (*self._loop_tasks, *running):
            task.cancel()
        await asyncio.gather(*self._loop_tasks, *running, return_exceptions=True)
        self._writer.close()
        if self._writer_task is not None:
            await self._writer_task
        self._claims.close()

    # -- batches

    async def _poll_batches(self) -> None:
        at_start, seen = True, 0
        while True:
            self._added.clear()
            try:
                seen = await self._start_batches(seen, at_start)
                at_start = False
            except (DatabaseError, StorageFullError) as error:
                logger.error("batches cannot be read: %s", error)
            try:
                await asyncio.wait_for(self._added.wait(), POLL_INTERVAL_S)
            except TimeoutError:
                seen = 0  # a claim of another server may be free now

    async def _start_batches(self, seen: int, at_start: bool) -> int:
        """Start the batches with a larger number than `seen`. Returns the largest number that was read."""
        for batch in await asyncio.to_thread(self._store.open_batches, seen):
            seen = batch.number
            is_known = batch.model in self._lanes and batch.id in self._lanes[batch.model].batches
            if is_known or not (at_start or batch.model in self._models) or not self._claims.claim(batch.model):
                continue
            lane = self._lanes.setdefault(batch.model, _Lane(batch.model))
            lane.batches.add(batch.id)  # first, so that the claim is not released
            places = await asyncio.to_thread(self._store.open_places, batch.id)
            lane.queue.add(batch.account, batch.id, places)
            if not places:  # it was finished after the list was read
                self._end_batch(lane, batch.id)
            self._start_items(lane)
        return seen

    async def _expire_results(self) -> None:
        while True:
            try:
                removed = await asyncio.to_thread(self._store.expire)
                if removed:
                    logger.info("results of %d batches removed: their retention time is over", removed)
            except (DatabaseError, StorageFullError) as error:
                logger.error("old batches cannot be removed: %s", error)
            await asyncio.sleep(EXPIRE_EVERY_S)

    # -- items

    def _start_items(self, lane: _Lane) -> None:
        """Start items up to max_running."""
        while self._lanes.get(lane.model) is lane and not lane.paused and len(lane.running) < self._max_running:
            queued = lane.queue.pop()
            if queued is None:
                return
            task = asyncio.create_task(self._run_item(lane, queued), name=f"batch-item {queued.key}")
            lane.running.add(task)
            task.add_done_callback(lambda done: self._on_item_end(lane, done))

    def _on_item_end(self, lane: _Lane, task: asyncio.Task[None]) -> None:
        lane.running.discard(task)
        self._start_items(lane)

    async def _run_item(self, lane: _Lane, queued: QueuedItem) -> None:
        try:
            item = await asyncio.to_thread(self._store.begin, queued.key)
        except (DatabaseError, StorageFullError) as error:
            logger.error("batch item %s cannot be read: %s", queued.key, error)
            self._retry_later(lane, queued)
            return
        try:
            self._writer.put(await self._work.run(item))
        except (CapacityError, DatabaseError):
            self._retry_later(lane, queued)
        except EngineError as error:
            lane.tries[queued.key] += 1
            if lane.tries[queued.key] < MAX_TRIES:
                self._retry_later(lane, queued)
            else:
                self._writer.put(self._work.error_result(item, error))
        except IntaglioError as error:
            self._writer.put(self._work.error_result(item, error))
        except Exception:
            logger.exception("batch item %s failed", queued.key)
            internal = EngineError("internal error; the server's log has the details")
            self._writer.put(self._work.error_result(item, internal))

    def _retry_later(self, lane: _Lane, queued: QueuedItem) -> None:
        lane.queue.put_back(queued)
        if not lane.paused:
            lane.paused = True
            asyncio.get_running_loop().call_later(self._retry_s, self._resume, lane)

    def _resume(self, lane: _Lane) -> None:
        lane.paused = False
        self._start_items(lane)

    def _on_batch_finished(self, batch: Batch) -> None:
        logger.info(
            "batch %s model=%s account=%s items=%d failed=%d prompt=%d completion=%d total=%.3fs",
            batch.id,
            batch.model,
            batch.account,
            batch.num_items,
            batch.num_failed,
            batch.tokens.prompt,
            batch.tokens.completion,
            batch.duration_s,
        )
        lane = self._lanes.get(batch.model)
        if lane is not None:
            self._end_batch(lane, batch.id)

    def _end_batch(self, lane: _Lane, batch_id: str) -> None:
        """Forget a finished batch. Without further batches, other servers may claim the model."""
        lane.batches.discard(batch_id)
        if not lane.batches and self._lanes.get(lane.model) is lane:
            del self._lanes[lane.model]
            self._claims.release(lane.model)
