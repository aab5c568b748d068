"""The engine's outputs for one request, as they arrive in the API process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from intaglio.request import Priority, TokenOutput


class TokenStream:
    """The outputs of one request, in order, ending with the one that has a finish reason.

    abort  tells the engine to end a request, by its id
    """

    def __init__(self, request_id: str, priority: Priority, abort: Callable[[str], Awaitable[None]]) -> None:
        self.priority = priority
        self._request_id = request_id
        self._abort = abort
        self._outputs: asyncio.Queue[TokenOutput] = asyncio.Queue()
        self._ended = asyncio.Event()

    def put(self, output: TokenOutput) -> None:
        if output.finish_reason is not None:
            self._ended.set()
        self._outputs.put_nowait(output)

    async def __aiter__(self) -> AsyncIterator[TokenOutput]:
        while True:
            output = await self._outputs.get()
            yield output
            if output.finish_reason is not None:
                return

    async def abort(self) -> None:
        """Free the sequence at the engine's next step. Harmless if it has ended."""
        if not self._ended.is_set():
            await self._abort(self._request_id)

    async def wait_ended(self) -> None:
        """Until the engine has ended the request, and its place is free for another one."""
        await self._ended.wait()
