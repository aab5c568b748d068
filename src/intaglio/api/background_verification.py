"""Verifies adapters that are served without a stored verification, such as the demo adapters.

The engine verifies these too when it first loads them, and keeps the verification in its cache. So it is asked for it
when a caller reads the finetune, which costs a second at first and little later. The result is remembered until the
server ends. Knows no route.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from intaglio.errors import AdapterError, EngineError
from intaglio.finetunes import Finetune, FinetuneVersion
from intaglio.request import AdapterRef, Verification

if TYPE_CHECKING:
    from intaglio.llm import AsyncLLM

logger = logging.getLogger(__name__)

MAX_WAIT_S = 5.0  # of a request that reads a finetune; the engine goes on, and a later request finds the result
MAX_PENDING = 8  # verifications that run or wait; a finetune read beyond that is shown without one
MAX_KNOWN = 10_000  # verifications that are remembered; a few hundred bytes each


class BackgroundVerification:
    """Asks for one verification at a time, so that the verification of an upload waits for one of these at most."""

    def __init__(self) -> None:
        self._known: dict[AdapterRef, Verification | None] = {}  # None if the engine refused the adapter
        self._pending: dict[AdapterRef, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()

    def with_known(self, finetune: Finetune) -> Finetune:
        """The finetune with the verification that is remembered of it, if there is one and it has none itself."""
        current = finetune.current
        if current is None or current.verification is not None:
            return finetune
        return replace(finetune, current=replace(current, verification=self._known.get(_ref(current))))

    async def with_verification(self, finetune: Finetune, llm: AsyncLLM | None) -> Finetune:
        """The same, and the engine is asked. Without a verification if it cannot say in MAX_WAIT_S, or no engine is
        there.

        llm  the base of the finetune; None if it is not served
        """
        pending = self._ask(finetune, llm) if llm is not None else None
        if pending is not None:
            await asyncio.wait([pending], timeout=MAX_WAIT_S)
        return self.with_known(finetune)

    def begin(self, finetunes: Iterable[Finetune], llm: AsyncLLM) -> None:
        """Start verifications whose results are read later."""
        for finetune in finetunes:
            self._ask(finetune, llm)

    async def close(self) -> None:
        """Cancel the verifications that run."""
        pending = list(self._pending.values())
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    def _ask(self, finetune: Finetune, llm: AsyncLLM) -> asyncio.Task[None] | None:
        current = finetune.current
        if current is None or current.verification is not None or not llm.ready:
            return None
        ref = _ref(current)
        if ref in self._known:
            return None
        if ref not in self._pending:
            if len(self._pending) >= MAX_PENDING:
                return None
            self._pending[ref] = asyncio.create_task(self._learn(ref, llm))
            self._pending[ref].add_done_callback(lambda _: self._pending.pop(ref))
        return self._pending[ref]

    async def _learn(self, ref: AdapterRef, llm: AsyncLLM) -> None:
        verification = None
        async with self._turn:
            try:
                verification = (await llm.verify(ref.folder, ref.digest)).verification
            except AdapterError as error:
                logger.warning("adapter %s is not verified, and not served: %s", ref.digest[:12], error)
            except EngineError as error:  # it is asked again
                logger.warning("adapter %s: no verification now: %s", ref.digest[:12], error)
                return
        if len(self._known) >= MAX_KNOWN:
            self._known.pop(next(iter(self._known)))
        self._known[ref] = verification


def _ref(version: FinetuneVersion) -> AdapterRef:
    return AdapterRef(version.digest, str(version.folder))
