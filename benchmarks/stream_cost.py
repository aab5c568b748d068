"""The cost of a stream in the API process: processor time per token, and the delay of the first byte.

The server runs in this process, its engine in another as always, the clients in a third, so the processor time of this
process is that of the API alone. Two runs with the same number of streams, short and long ones, separate the cost of a
token from that of a request. The delay of the first byte counts from when the engine's message with the first token is
read from its socket to when the first bytes of the response body are passed to the network.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from benchmarks import results
from benchmarks.health import ROOT, TEXT, summary_ms
from benchmarks.models import Home
from intaglio.api.app import create_app
from intaglio.api.startup import build_state
from intaglio.cli.serve import bind
from intaglio.engine import client as engine_process
from intaglio.engine.token_stream import TokenStream
from intaglio.request import TokenOutput
from intaglio.settings import DEFAULT_MODEL_ID, load_settings

STREAMS = 16
SHORT, LONG = 8, 264  # tokens of a stream
PROMPT_CHARACTERS = 200
ROUNDS = 3

Message = dict[str, Any]
Asgi = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


@dataclass(slots=True)
class _Times:
    """When a request's first token was read and its first body bytes were sent; seconds of the monotonic clock."""

    token: float | None = None
    byte: float | None = None


@dataclass(slots=True)
class _Watch:
    """Records of the wrapped parts of the server."""

    requests: list[_Times] = field(default_factory=list)
    messages: int = 0  # from the engine, one per step
    tokens: int = 0

    def clear(self) -> None:
        self.requests.clear()
        self.messages = self.tokens = 0


_current: ContextVar[_Times] = ContextVar("current")


def measure(_home: Home, threads: int) -> dict[str, Any]:
    """Per streamed token: processor time in microseconds, median of the rounds. Delays in milliseconds."""
    environment = results.environment(threads)
    return {**environment, "streams": STREAMS, **asyncio.run(_serve_and_measure(threads))}


async def _serve_and_measure(threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="intaglio-bench-") as folder, _watched() as watch:
        settings = load_settings(data_dir=Path(folder), threads=threads, port=0)
        state, listener = await build_state(settings), bind(settings)
        config = uvicorn.Config(_timed(create_app(state), watch), log_config=None, access_log=False)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            url = f"127.0.0.1:{listener.getsockname()[1]}"
            await _round(url, watch, SHORT)  # warms up
            rounds = [(await _round(url, watch, SHORT), await _round(url, watch, LONG)) for _ in range(ROUNDS)]
        finally:
            server.should_exit = True
            await running
            await state.close()
    costs = [(long.cpu_s - short.cpu_s) / (long.tokens - short.tokens) * 1e6 for short, long in rounds]
    delays = [delay for short, long in rounds for delay in (*short.delays_s, *long.delays_s)]
    return {
        "cpu_us_per_token": statistics.median(costs),
        "cpu_us_spread": [min(costs), max(costs)],
        "tokens": sum(short.tokens + long.tokens for short, long in rounds),
        "cpu_ms_per_request": statistics.median(
            (short.cpu_s - cost * 1e-6 * short.tokens) / STREAMS * 1000
            for (short, _), cost in zip(rounds, costs, strict=True)
        ),
        "step_ms": statistics.median(long.step_s for _, long in rounds) * 1000,
        "first_byte": summary_ms(delays),
    }


@dataclass(frozen=True, slots=True)
class _Round:
    cpu_s: float
    tokens: int
    step_s: float
    delays_s: list[float]


async def _round(url: str, watch: _Watch, tokens: int) -> _Round:
    """Run all streams at once, with clients in another process; measure the processor time of this process."""
    watch.clear()
    client = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.stream_cost",
        url,
        str(tokens),
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        cwd=ROOT,
    )
    assert client.stdout is not None
    assert client.stdin is not None
    await client.stdout.readline()  # the clients are connected
    cpu, begin = time.process_time(), time.perf_counter()
    client.stdin.write(b"go\n")
    reported = json.loads(await client.stdout.readline())
    cpu, took = time.process_time() - cpu, time.perf_counter() - begin
    if await client.wait() != 0 or reported != {"streams": STREAMS}:
        raise RuntimeError(f"the clients ended with {client.returncode} and {reported}")
    delays = [times.byte - times.token for times in watch.requests if times.token and times.byte]
    assert len(delays) == STREAMS, f"{len(delays)} of {STREAMS} streams were seen"
    return _Round(cpu, watch.tokens, took / watch.messages, delays)


@contextmanager
def _watched() -> Iterator[_Watch]:
    """Record when the engine's outputs arrive, until the block ends."""
    watch = _Watch()
    put, handle = TokenStream.put, engine_process.EngineClient._handle
    owners: dict[int, _Times] = {}
    make = TokenStream.__init__

    def recording_init(stream: Any, *arguments: Any) -> None:
        make(stream, *arguments)
        owners[id(stream)] = _current.get(_Times())

    def recording_put(stream: Any, output: TokenOutput) -> None:
        watch.tokens += output.token_id is not None
        times = owners[id(stream)]
        if times.token is None:
            times.token = time.perf_counter()
        put(stream, output)

    def recording_handle(client: Any, data: bytes) -> None:
        watch.messages += 1
        handle(client, data)

    wrapped = ((TokenStream, "__init__", recording_init), (TokenStream, "put", recording_put))
    for owner, name, function in wrapped:
        setattr(owner, name, function)
    engine_process.EngineClient._handle = recording_handle  # type: ignore[method-assign]
    try:
        yield watch
    finally:
        TokenStream.__init__, TokenStream.put = make, put  # type: ignore[method-assign]
        engine_process.EngineClient._handle = handle  # type: ignore[method-assign]


def _timed(app: Any, watch: _Watch) -> Any:
    """The application, recording the time of each response's first body bytes."""

    async def timed(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        times = _Times()
        watch.requests.append(times)
        _current.set(times)

        async def recording_send(message: Message) -> None:
            await send(message)
            if times.byte is None and message.get("body"):
                times.byte = time.perf_counter()

        await app(scope, receive, recording_send)

    return timed


def _clients(url: str, tokens: int) -> None:
    """Read one stream per thread to its end; print a line when all are connected and one when all have ended."""
    text = TEXT.read_text()
    ended: list[int] = []

    def stream(index: int, go: threading.Barrier) -> None:
        prompt = text[index * 641 : index * 641 + PROMPT_CHARACTERS]
        body = json.dumps({"prompt": prompt, "raw": True, "stream": True, "max_tokens": tokens, "seed": index + 1})
        host, port = url.split(":")
        path = f"/client/v4/accounts/bench/ai/run/{DEFAULT_MODEL_ID}"
        request = (
            f"POST {path} HTTP/1.1\r\nhost: {url}\r\ncontent-length: {len(body.encode())}\r\nconnection: close\r\n\r\n"
        )
        with socket.create_connection((host, int(port))) as connection:
            go.wait()
            connection.sendall(request.encode() + body.encode())
            content = b""
            while received := connection.recv(1 << 16):
                content += received
        if b"data: [DONE]" in content:
            ended.append(index)

    go = threading.Barrier(STREAMS + 1)
    threads = [threading.Thread(target=stream, args=(index, go)) for index in range(STREAMS)]
    for thread in threads:
        thread.start()
    print("up", flush=True)
    sys.stdin.readline()
    go.wait()
    for thread in threads:
        thread.join()
    print(json.dumps({"streams": len(ended)}), flush=True)


if __name__ == "__main__":
    _clients(sys.argv[1], int(sys.argv[2]))
