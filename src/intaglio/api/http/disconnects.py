"""Notices that the client has disconnected, so that its sequence is freed at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive

T = TypeVar("T")

CLIENT_CLOSED_REQUEST = 499  # as in nginx; only the access log shows it


class ClientDisconnectedError(Exception):
    """The connection was closed before the response was complete."""


async def unless_disconnected(receive: Receive, work: Coroutine[None, None, T]) -> T:
    """Run `work`; if the client disconnects first, cancel it and raise ClientDisconnectedError.

    The request's body must have been read. Cancellation of the caller cancels the work.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnectedError
        return task.result()
    finally:
        for pending in (task, watcher):
            pending.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def run_until_disconnected(
    receive: Receive, work: Coroutine[None, None, T], running: AbstractAsyncContextManager[object]
) -> T | None:
    """Run `work` within `running`, which frees what the work uses. None if the client disconnects first."""
    with suppress(ClientDisconnectedError):
        async with running:
            return await unless_disconnected(receive, work)
    return None


def client_closed_response() -> Response:
    """The response for the access log when the client has disconnected."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
