"""A client that hangs up after any number of bytes of a stream leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from intaglio.api.app import create_app
from intaglio.api.inference import sse
from intaglio.api.state import ServerState
from tests.api.conftest import RUN
from tests.helpers.fakes import FakeLLM
from tests.helpers.live_server import live_server
from tests.helpers.log_lines import log_lines

DEADLINE_S = 20.0
CALL = '<answer>{"name": "now", "parameters": {}}</answer>'
STREAMS: dict[str, dict[str, Any]] = {
    "text that ends": {"prompt": "two one", "raw": True},
    "text that goes on for ever": {"prompt": "<stall> two one", "raw": True},
    "a call": {"prompt": CALL, "tools": [{"name": "now"}]},
    "an error": {"prompt": "<fail> one", "raw": True},
}


class LoopKeeper:
    """Remembers the loop that the application runs in, so that a test can look at its tasks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.loop = asyncio.get_running_loop()
        await self._app(scope, receive, send)

    def tasks_left(self, before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
        """Tasks that are neither of `before` nor end within the deadline."""

        async def settle() -> set[asyncio.Task[Any]]:
            fresh = asyncio.all_tasks() - before - {asyncio.current_task()}
            return (await asyncio.wait(fresh, timeout=DEADLINE_S))[1] if fresh else set()  # type: ignore[type-var]

        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(settle(), self.loop).result(DEADLINE_S)


@pytest.fixture
def app(state: ServerState, monkeypatch: pytest.MonkeyPatch) -> LoopKeeper:
    monkeypatch.setattr(sse, "MAX_PADDING", sse.MIN_PADDING)  # so that a stream has the same bytes each time
    return LoopKeeper(create_app(state))


@pytest.fixture
def address(app: LoopKeeper) -> Iterator[str]:
    with live_server(app) as address:
        yield address


@pytest.fixture
def closed_runs() -> Iterator[queue.Queue[str]]:
    """The log lines of runs that were closed, as they come."""
    with log_lines("intaglio.api.inference.request_log") as lines:
        yield lines


def ask(address: str, body: dict[str, Any]) -> socket.socket:
    """A connection over which a stream was asked for."""
    host, port = address.removeprefix("http://").split(":")
    content = json.dumps({**body, "stream": True}).encode()
    head = f"POST {RUN} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n"
    connection = socket.create_connection((host, int(port)), DEADLINE_S)
    connection.sendall(head.encode() + content)
    return connection


def whole_stream(address: str, body: dict[str, Any]) -> bytes:
    """All that comes, headers and lengths of chunks included; of a stream without end, what comes before it stalls."""
    last = b'" two",' if "<stall>" in body["prompt"] else b"0\r\n\r\n"
    read = b""
    with ask(address, body) as connection:
        while last not in read or not read.endswith(b"\n\r\n"):
            piece = connection.recv(65536)
            assert piece, read
            read += piece
    return read


def hang_up_after(address: str, body: dict[str, Any], num_bytes: int) -> bytes:
    """Ask for a stream, read so many bytes of it, and hang up."""
    read = b""
    with ask(address, body) as connection:
        while len(read) < num_bytes:
            piece = connection.recv(num_bytes - len(read))
            assert piece, read
            read += piece
    return read


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", STREAMS)
def test_a_disconnect_at_any_byte_ends_the_run_once_and_leaks_nothing(
    address: str, app: LoopKeeper, llm: FakeLLM, closed_runs: queue.Queue[str], kind: str, step: int
) -> None:
    """After every step-th byte, and within the last of the stream."""
    body = STREAMS[kind]
    whole = whole_stream(address, body)
    closed_runs.get(timeout=DEADLINE_S)
    assert app.loop is not None
    before = asyncio.all_tasks(app.loop)
    hang_ups = sorted({*range(0, len(whole), step), *range(len(whole) - 8, len(whole) + 1)})
    for num_bytes in hang_ups:
        read = hang_up_after(address, body, num_bytes)
        assert len(read) == num_bytes
        line = closed_runs.get(timeout=DEADLINE_S)  # the run was closed ...
        assert kind != "text that goes on for ever" or line.endswith("reason=abort")
    assert app.tasks_left(before) == set()
    assert closed_runs.empty()  # ... and not twice
    assert llm.num_open == 0
    assert len(llm.submitted) == len(hang_ups) + 1
    after = httpx.post(address + RUN, json={"prompt": "two one", "raw": True}, timeout=DEADLINE_S)
    assert after.json()["result"]["response"] == "one two"
