from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from intaglio.engine.client import EngineClient
from intaglio.engine.engine import EngineLimits
from intaglio.engine.protocol import EngineSpec
from intaglio.engine.token_stream import TokenStream
from intaglio.errors import CapacityError, EngineDeadError
from intaglio.model.loader import load_gemma
from intaglio.request import EngineRequest, FinishReason, Priority, TokenOutput
from tests.helpers.checkpoints import tensor_shapes, tiny_config
from tests.helpers.engines import make_engine, request, run, write_tiny_model
from tests.helpers.kernels import CHOSEN_KERNELS, chosen_ops

LIMITS = EngineLimits(max_running=4, step_tokens=64, kv_block_size=4, kv_cache_bytes=1 << 23)
LONG: dict[str, object] = {"max_tokens": 500, "ignore_stop_tokens": True}  # far longer than a test needs


def make_spec(model_path: Path) -> EngineSpec:
    return EngineSpec(
        model_path=str(model_path),
        packed_dir=str(model_path.with_suffix(".packed")),
        format="auto",
        kernels=CHOSEN_KERNELS,
        threads=1,
        context_window=None,
        limits=LIMITS,
        stop_ids=[1],
        vocab_size=256,
        adapter_dtype="float32",
        adapter_cache_bytes=1 << 20,
        max_adapter_rank=8,
        max_adapter_file_bytes=1 << 20,
        log_level="warning",
    )


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


Act = Callable[[EngineClient], Awaitable[None]]


def with_client(path: Path, act: Act, max_in_flight: int = 8) -> None:
    """Run `act` with an engine process of its own."""

    async def start_and_act() -> None:
        client = await EngineClient.start(make_spec(path), max_in_flight=max_in_flight)
        try:
            await asyncio.wait_for(act(client), timeout=60)
        finally:
            await client.close()

    asyncio.run(start_and_act())


@contextmanager
def shared_client(path: Path) -> Iterator[Callable[[Act], None]]:
    """Runs functions one after the other with one engine process: starting one takes longer than most tests."""
    with asyncio.Runner() as runner:
        client = runner.run(EngineClient.start(make_spec(path), max_in_flight=8))

        def with_shared_client(act: Act) -> None:
            runner.run(asyncio.wait_for(act(client), timeout=60))  # type: ignore[arg-type]
            assert client.num_in_flight == 0
            assert client.num_starts == 1

        yield with_shared_client
        runner.run(client.close())


@pytest.fixture(scope="module")
def with_shared_client(model_path: Path) -> Iterator[Callable[[Act], None]]:
    with shared_client(model_path) as run_with_client:
        yield run_with_client


async def collect(stream: TokenStream) -> list[TokenOutput]:
    return [output async for output in stream]


async def first(stream: TokenStream) -> TokenOutput:
    return await anext(aiter(stream))


def test_the_engine_process_gives_the_same_tokens_as_an_engine_in_this_process(
    model_path: Path, with_shared_client: Callable[[Act], None]
) -> None:
    requests = [request(str(i), [2, 10 + i, 20, 30], ignore_stop_tokens=True) for i in range(3)]
    ops = chosen_ops(1)
    engine = make_engine(load_gemma(model_path, ops, "auto"), LIMITS, ops=ops)
    expected = run(engine, requests).tokens

    async def act(client: EngineClient) -> None:
        streams = [await client.submit(item) for item in requests]
        for item, outputs in zip(requests, await asyncio.gather(*map(collect, streams)), strict=True):
            assert [output.token_id for output in outputs] == expected[item.request_id]
            assert outputs[-1].finish_reason is FinishReason.LENGTH
        assert client.num_in_flight == 0

    with_shared_client(act)


def test_the_status_is_read_while_a_request_runs(with_shared_client: Callable[[Act], None]) -> None:
    async def act(client: EngineClient) -> None:
        before = await client.status()
        stream = await client.submit(request("r", [2, 5], **LONG))
        await first(stream)
        during = await client.status()
        assert (during.running, during.running_on_base, during.waiting) == (1, 1, 0)
        assert during.completion_tokens > before.completion_tokens
        await stream.abort()
        await stream.wait_ended()
        assert (await client.status()).running == 0

    with_shared_client(act)


def test_an_engine_that_is_gone_has_no_status(model_path: Path) -> None:
    async def act(client: EngineClient) -> None:
        await client.close()
        with pytest.raises(EngineDeadError, match="closed"):
            await client.status()

    with_client(model_path, act)


def test_an_aborted_request_ends_with_abort(with_shared_client: Callable[[Act], None]) -> None:
    async def act(client: EngineClient) -> None:
        stream = await client.submit(request("r", [2, 5], **LONG))
        await first(stream)
        await stream.abort()
        assert (await collect(stream))[-1].finish_reason is FinishReason.ABORT

    with_shared_client(act)


def test_when_the_process_is_killed_running_requests_fail_and_new_ones_are_served(model_path: Path) -> None:
    async def act(client: EngineClient) -> None:
        running = [await client.submit(request(name, [2, 5], **LONG)) for name in "ab"]
        for stream in running:
            await first(stream)
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        for stream in running:
            last = (await collect(stream))[-1]
            assert last.finish_reason is FinishReason.ERROR
            assert last.error == "the engine process ended with status -9"
        after = await collect(await client.submit(request("c", [2, 5], ignore_stop_tokens=True)))
        assert after[-1].finish_reason is FinishReason.LENGTH
        assert client.num_starts == 2
        assert client.ready

    with_client(model_path, act)


def test_requests_of_a_group_arrive_together_and_share_a_prompt_of_one_step(
    with_shared_client: Callable[[Act], None],
) -> None:
    async def act(client: EngineClient) -> None:
        each = [request(f"g{i}", [2, *range(10, 21)], seed=i, max_tokens=1) for i in range(4)]
        streams = await client.submit_all([msgspec.structs.replace(one, group="g") for one in each])
        outputs = await asyncio.gather(*map(collect, streams))
        assert [one[-1].cached_tokens for one in outputs] == [0, 11, 11, 11]

    with_shared_client(act)


def test_requests_that_do_not_all_fit_into_the_queue_are_refused_together(model_path: Path) -> None:
    async def act(client: EngineClient) -> None:
        with pytest.raises(CapacityError, match="0 requests are running or waiting; for these 3 the limit is 2"):
            await client.submit_all([request(name, [2, 5]) for name in "abc"])
        assert client.num_in_flight == 0

    with_client(model_path, act, max_in_flight=2)


def test_more_requests_than_the_queue_holds_are_refused_at_once(model_path: Path) -> None:
    async def act(client: EngineClient) -> None:
        streams = [await client.submit(request(name, [2, 5], **LONG)) for name in "ab"]
        with pytest.raises(CapacityError, match="2 requests"):
            await client.submit(request("c", [2, 5]))
        for stream in streams:
            await stream.abort()
            await collect(stream)
        assert (await collect(await client.submit(request("d", [2, 5]))))[-1].finish_reason is not None

    with_client(model_path, act, max_in_flight=2)


def test_a_request_that_cannot_be_sent_is_not_in_flight(with_shared_client: Callable[[Act], None]) -> None:
    async def act(client: EngineClient) -> None:
        with pytest.raises(UnicodeEncodeError):
            await client.submit(request("r", [2, 50], grammar='start: "\ud800"'))  # half a surrogate pair
        assert client.num_in_flight == 0

    with_shared_client(act)


def test_batch_requests_do_not_count_against_the_limit_of_interactive_ones(model_path: Path) -> None:
    async def act(client: EngineClient) -> None:
        batch = [await client.submit(request(f"b{i}", [2, 5], None, Priority.BATCH, **LONG)) for i in range(6)]
        assert (client.num_in_flight, client.num_interactive) == (6, 0)
        quick = await client.submit(request("i", [2, 5], ignore_stop_tokens=True), reject_if_busy=True)
        assert (await collect(quick))[-1].finish_reason is FinishReason.LENGTH
        for stream in batch:
            await stream.abort()
            assert (await collect(stream))[-1].finish_reason is FinishReason.ABORT

    with_client(model_path, act, max_in_flight=2)


def test_with_reject_if_busy_a_request_is_refused_when_max_running_requests_run(
    with_shared_client: Callable[[Act], None],
) -> None:
    async def act(client: EngineClient) -> None:
        running = [await client.submit(request(str(i), [2, 5], **LONG), reject_if_busy=True) for i in range(4)]
        with pytest.raises(CapacityError, match=r"4 requests .* 4"):
            await client.submit(request("busy", [2, 5]), reject_if_busy=True)
        patient = await client.submit(request("patient", [2, 5], ignore_stop_tokens=True))
        await running[0].abort()
        assert (await collect(patient))[-1].finish_reason is FinishReason.LENGTH
        for stream in running:
            await stream.abort()
            await collect(stream)

    with_shared_client(act)


def test_a_model_that_cannot_be_loaded_is_reported_with_the_reason(tmp_path: Path) -> None:
    async def act() -> None:
        with pytest.raises(EngineDeadError, match=r"ModelFormatError.*nowhere"):
            await EngineClient.start(make_spec(tmp_path / "nowhere"), max_in_flight=1)

    asyncio.run(act())


def test_a_closed_client_takes_no_more_requests(model_path: Path) -> None:
    async def act() -> None:
        client = await EngineClient.start(make_spec(model_path), max_in_flight=1)
        await client.close()
        await client.close()
        with pytest.raises(EngineDeadError):
            await client.submit(EngineRequest("r", [2], request("r", [2]).params))

    asyncio.run(act())


def test_the_engine_ends_when_its_parent_is_gone(model_path: Path, tmp_path: Path) -> None:
    spec = msgspec.json.encode(make_spec(model_path)) + b"\n"
    command = [sys.executable, "-m", "intaglio.engine.core_process", f"ipc://{tmp_path}/unused.sock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(spec)
        process.stdin.close()  # as when the parent is killed
        assert process.wait(timeout=30) == 0


def test_quantizing_reports_the_bytes_done_and_a_start_from_the_cache_reports_nothing(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(make_spec(write_tiny_model(tmp_path / "model")), format="w4")
    starts: list[list[tuple[int, int]]] = []

    async def start_and_close() -> None:
        seen: list[tuple[int, int]] = []
        client = await EngineClient.start(spec, max_in_flight=8, on_loading=lambda *now: seen.append(now))
        await client.close()
        starts.append(seen)

    for _ in range(2):
        asyncio.run(start_and_close())
    first, second = starts
    shapes = tensor_shapes(tiny_config("gemma3_text")).values()
    matrices = sum(4 * math.prod(shape) for shape in shapes if len(shape) == 2)
    assert first[-1] == (matrices, matrices)
    assert [done for done, _ in first] == sorted(done for done, _ in first)
    if CHOSEN_KERNELS != "reference":
        assert second == []
