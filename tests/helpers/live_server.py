"""A uvicorn server on a free port, in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

START_DEADLINE_S = 20.0


class _ThreadServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.up.set()

    async def main_loop(self) -> None:
        """Serve until `end` is called; at once, whereas uvicorn's own loop checks ten times a second."""
        await self.on_tick(0)
        await self._ending.wait()

    def end(self) -> None:
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ending.set)


@contextmanager
def live_server(app: ASGIApp) -> Iterator[str]:
    """Serve `app`; the value is the server's address, such as http://127.0.0.1:54321."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = _ThreadServer(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        assert server.up.wait(START_DEADLINE_S), "the server did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.end()
        thread.join(START_DEADLINE_S)
        listener.close()
    assert not thread.is_alive(), "the server did not stop"
