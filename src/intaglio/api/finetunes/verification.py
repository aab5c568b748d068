"""Lets the thread that adds an adapter ask the engine, on the server's event loop, to verify it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, TypeVar

from intaglio.errors import EngineError
from intaglio.request import VerifiedAdapter

if TYPE_CHECKING:
    from intaglio.llm import AsyncLLM

_Result = TypeVar("_Result")


async def with_verifier(llm: AsyncLLM, act: Callable[[LoopVerifier], _Result]) -> _Result:
    """Run `act(verify)` in a thread; both may block.

    If the caller is cancelled, the verification is cancelled too, but the thread is waited for: it uses the staged
    file, which must stay until it ends.
    """
    verifier = LoopVerifier(llm, asyncio.get_running_loop())
    running = asyncio.ensure_future(asyncio.to_thread(act, verifier))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        verifier.cancel()
        await asyncio.wait([running])
        running.exception()  # read, so that asyncio does not report it
        raise


class LoopVerifier:
    """Called in a thread with an adapter's folder, it blocks until the engine has verified the adapter.

    Raises AdapterError if the engine refuses the adapter, EngineError if it gives no verdict.
    """

    def __init__(self, llm: AsyncLLM, loop: asyncio.AbstractEventLoop) -> None:
        self._llm = llm
        self._loop = loop
        self._lock = threading.Lock()
        self._cancelled = False
        self._running: Future[VerifiedAdapter] | None = None

    def __call__(self, folder: str) -> VerifiedAdapter:
        with self._lock:
            if self._cancelled:
                raise _cancelled_error()
            self._running = asyncio.run_coroutine_threadsafe(self._llm.verify(folder), self._loop)
        try:
            return self._running.result()
        except CancelledError as error:
            raise _cancelled_error() from error

    def cancel(self) -> None:
        """Cancel a running verification, and refuse further ones."""
        with self._lock:
            self._cancelled = True
            if self._running is not None:
                self._running.cancel()


def _cancelled_error() -> EngineError:
    return EngineError("the verification of the adapter was cut off: the upload was given up, or the server stops")
