"""Noticing that the client has gone away, so that its sequence is freed and not computed for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

from starlette.types import Receive

T = TypeVar("T")


class ClientGoneError(Exception):
    """The connection was closed before the answer was there. Nobody is left to be told."""


async def unless_gone(receive: Receive, work: Coroutine[None, None, T]) -> T:
    """Run `work`; if the client disconnects first, cancel it and raise ClientGoneError.

    The request's body must have been read. Cancellation of the caller cancels the work.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for pending in (task, watcher):
            pending.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def see_through(
    receive: Receive, work: Coroutine[None, None, T], end: Callable[[BaseException | None], Awaitable[None]]
) -> T | None:
    """What `work` gives; None if the client left before. `end` is told once what cut it short, if anything did."""
    failed: BaseException | None = None
    try:
        return await unless_gone(receive, work)
    except ClientGoneError as error:
        failed = error
        return None
    except BaseException as error:
        failed = error
        raise
    finally:
        await end(failed)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
