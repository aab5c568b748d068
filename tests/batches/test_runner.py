from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from intaglio.batches import Batch, BatchRunner, BatchState, BatchStore, Item, ItemKey, ItemResult, ModelClaims
from intaglio.batches.runner import MAX_TRIES
from intaglio.errors import BadInputError, CapacityError, EngineError, IntaglioError, StorageFullError
from tests.batches.conftest import LIMITS, MODEL, requests

DEADLINE_S = 20.0


class Work:
    """Answers with the request's own text; `fault` may name an error instead. Nothing ends while `go` is not set."""

    def __init__(self) -> None:
        self.begun: list[ItemKey] = []
        self.running = 0
        self.most_running = 0
        self.fault: Callable[[Item], Exception | None] = lambda _: None
        self.go = asyncio.Event()
        self.idle = asyncio.Event()  # set whenever the last running item ends
        self._news = asyncio.Condition()

    async def run(self, item: Item) -> ItemResult:
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            async with self._news:
                self.begun.append(item.key)
                self._news.notify_all()
            await self.go.wait()
            error = self.fault(item)
            if error is not None:
                raise error
            return ItemResult(item.key, item.request, True)
        finally:
            self.running -= 1
            if not self.running:
                self.idle.set()

    def error_result(self, item: Item, error: IntaglioError) -> ItemResult:
        return ItemResult(item.key, f"{type(error).__name__}: {error}".encode(), False)

    async def until_begun(self, number: int) -> None:
        async with self._news:
            await asyncio.wait_for(self._news.wait_for(lambda: len(self.begun) >= number), DEADLINE_S)


class WatchedStore(BatchStore):
    """Tells the event loop of each commit. The next `num_faults` commits fail as on a full disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, LIMITS)
        self.committed = asyncio.Event()
        self.looked = asyncio.Event()
        self.num_faults = 0
        self._loop = asyncio.get_running_loop()

    def open_batches(self, after: int = 0) -> list[Batch]:
        found = super().open_batches(after)
        self._loop.call_soon_threadsafe(self.looked.set)
        return found

    def finish(self, results: Sequence[ItemResult]) -> list[Batch]:
        if self.num_faults:
            self.num_faults -= 1
            raise StorageFullError("the server's disk is full")
        finished = super().finish(results)
        self._loop.call_soon_threadsafe(self.committed.set)
        return finished

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not met():
                self.committed.clear()
                await self.committed.wait()

    async def until_finished(self, batch: Batch) -> list[bytes]:
        await self.until(lambda: self.find(batch.account, batch.id).state is BatchState.FINISHED)
        return self.responses(batch.account, batch.id)


class WatchedClaims(ModelClaims):
    """Tells the event loop when a model is free again for other servers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.released = asyncio.Event()

    def release(self, model: str) -> None:
        super().release(model)
        self.released.set()


class Server:
    """A store, a runner and its work, as one server has them."""

    def __init__(self, data: Path, max_running: int = 4, models: tuple[str, ...] = (MODEL,)) -> None:
        self.work = Work()
        self.store = WatchedStore(data / "batches.db")
        self.claims = WatchedClaims(data / "claims")
        self._added = asyncio.Event()
        self.runner = BatchRunner(
            self.store,
            self.claims,
            self.work,
            models=models,
            max_running=max_running,
            added=self._added,
            retry_s=0.001,
        )

    def add(self, number: int, account: str = "acc0", model: str = MODEL) -> Batch:
        batch = self.store.add(account, model, requests(number), b"{}")
        self._added.set()
        return batch


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    server.runner.start()
    try:
        yield server
    finally:
        await server.runner.stop()
        server.store.close()


def test_every_item_runs_once_and_no_more_at_a_time_than_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with serving(Server(tmp_path)) as server:
            batch = server.add(11)
            await server.work.until_begun(4)
            assert server.store.find("acc0", batch.id).state is BatchState.RUNNING
            server.work.go.set()
            assert await server.store.until_finished(batch) == requests(11)
            assert sorted(server.work.begun) == [ItemKey(batch.id, place) for place in range(11)]
            assert server.work.most_running == 4

    with caplog.at_level(logging.INFO):
        asyncio.run(test())
    lines = [line for line in caplog.messages if line.startswith("batch ")]
    assert len(lines) == 1
    assert f"model={MODEL} account=acc0 items=11 failed=0" in lines[0]


def test_a_small_batch_of_another_account_does_not_wait_for_a_large_one(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(Server(tmp_path, max_running=1)) as server:
            large = server.add(40, "acc0")
            await server.work.until_begun(1)
            small = server.add(2, "acc1")
            server.work.go.set()
            await server.store.until_finished(large)
            places = [number for number, key in enumerate(server.work.begun) if key.batch_id == small.id]
            assert len(places) == 2
            assert places[1] - places[0] == 2  # turn and turn about, from when it was seen

    asyncio.run(test())


def test_items_interrupted_by_stop_run_again_and_finished_ones_do_not(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(Server(tmp_path)) as first:
            first.work.go.set()
            done = first.add(2)
            await first.store.until_finished(done)
            first.work.go.clear()
            batch = first.add(6)
            await first.work.until_begun(6)
            assert first.work.running == 4
        assert first.work.running == 0
        async with serving(Server(tmp_path)) as second:
            second.work.go.set()
            assert await second.store.until_finished(batch) == requests(6)
            assert sorted(second.work.begun) == [ItemKey(batch.id, place) for place in range(6)]
        assert len(first.work.begun) == 2 + 4

    asyncio.run(test())


def test_a_server_takes_over_the_batches_of_another_only_when_that_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intaglio.batches.runner.POLL_INTERVAL_S", 0.01)

    async def test() -> None:
        async with serving(Server(tmp_path)) as first:
            batch = first.add(6)
            await first.work.until_begun(4)
            async with serving(Server(tmp_path)) as second:
                second.work.go.set()
                also = second.add(1)
                second.store.looked.clear()
                for _ in range(2):  # it has seen both batches and left them alone
                    await asyncio.wait_for(second.store.looked.wait(), DEADLINE_S)
                    second.store.looked.clear()
                assert second.work.begun == []
                await first.runner.stop()
                assert await second.store.until_finished(batch) == requests(6)
                assert await second.store.until_finished(also) == requests(1)

    asyncio.run(test())


def test_a_server_without_batches_leaves_the_next_batch_to_the_server_that_accepts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intaglio.batches.runner.POLL_INTERVAL_S", 3600.0)  # else the other may look first

    async def test() -> None:
        async with serving(Server(tmp_path)) as first, serving(Server(tmp_path)) as second:
            for server in (first, second):
                await asyncio.wait_for(server.store.looked.wait(), DEADLINE_S)  # at the start, and found nothing
            for server in (first, second, first):
                server.work.go.set()
                server.claims.released.clear()
                batch = server.add(2)
                assert await server.store.until_finished(batch) == requests(2)
                assert server.work.begun[-2].batch_id == batch.id
                await asyncio.wait_for(server.claims.released.wait(), DEADLINE_S)

    asyncio.run(test())


def test_an_item_at_fault_ends_alone_with_its_error(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(Server(tmp_path)) as server:
            server.work.go.set()
            server.work.fault = lambda item: BadInputError("no prompt") if item.key.place == 1 else None
            batch = server.add(3)
            responses = await server.store.until_finished(batch)
            assert responses == [b'{"prompt":"0"}', b"BadInputError: no prompt", b'{"prompt":"2"}']
            assert server.store.find("acc0", batch.id).num_failed == 1

    asyncio.run(test())


def test_items_wait_in_order_while_the_engine_has_no_capacity(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(Server(tmp_path, max_running=1)) as server:
            server.work.go.set()
            refusals = [CapacityError("full")] * 5
            server.work.fault = lambda _: refusals.pop() if refusals else None
            batch = server.add(3)
            assert await server.store.until_finished(batch) == requests(3)
            assert [key.place for key in server.work.begun] == [0] * 6 + [1, 2]

    asyncio.run(test())


def test_a_server_error_is_retried_a_bounded_number_of_times(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(Server(tmp_path)) as server:
            server.work.go.set()
            once = [EngineError("the engine process ended")]

            def fault(item: Item) -> Exception | None:
                if item.key.place == 0:
                    return EngineError("this item kills the engine")
                return once.pop() if item.key.place == 1 and once else None

            server.work.fault = fault
            batch = server.add(3)
            responses = await server.store.until_finished(batch)
            assert responses == [b"EngineError: this item kills the engine", b'{"prompt":"1"}', b'{"prompt":"2"}']
            assert [key.place for key in server.work.begun].count(0) == MAX_TRIES
            assert [key.place for key in server.work.begun].count(1) == 2

    asyncio.run(test())


def test_an_unexpected_exception_ends_one_item(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with serving(Server(tmp_path)) as server:
            server.work.go.set()
            server.work.fault = lambda item: ZeroDivisionError("oh") if item.key.place == 0 else None
            responses = await server.store.until_finished(server.add(2))
            assert responses == [b"EngineError: internal error; the server's log has the details", b'{"prompt":"1"}']

    asyncio.run(test())
    assert "ZeroDivisionError: oh" in caplog.text


def test_a_full_disk_delays_results_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio.batches.result_writer.RETRY_S", 0.001)

    async def test() -> None:
        async with serving(Server(tmp_path)) as server:
            server.store.num_faults = 3
            server.work.go.set()
            assert await server.store.until_finished(server.add(5)) == requests(5)
            assert len(server.work.begun) == 5

    asyncio.run(test())


def test_stop_writes_the_results_that_are_there(tmp_path: Path) -> None:
    async def test() -> None:
        server = Server(tmp_path)
        async with serving(server):
            batch = server.add(4)
            await server.work.until_begun(4)
            server.work.go.set()
            await asyncio.wait_for(server.work.idle.wait(), DEADLINE_S)  # their results are on the way
        again = BatchStore(tmp_path / "batches.db", LIMITS)
        assert again.open_places(batch.id) == []
        again.close()

    asyncio.run(test())


def test_batches_of_a_model_that_is_no_longer_served_are_failed_at_the_start_only(tmp_path: Path) -> None:
    async def test() -> None:
        other = Server(tmp_path)
        left = other.add(2, model="@cf/gone")
        other.store.close()
        async with serving(Server(tmp_path)) as server:
            server.work.go.set()
            server.work.fault = lambda item: BadInputError("no such model") if item.model == "@cf/gone" else None
            assert await server.store.until_finished(left) == [b"BadInputError: no such model"] * 2
            later = server.add(1, model="@cf/gone")  # as another server of this folder would take it in
            mine = server.add(1)
            await server.store.until_finished(mine)
            assert server.store.find("acc0", later.id).state is BatchState.QUEUED

    asyncio.run(test())
