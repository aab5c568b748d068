"""Verifications of adapters that answer without one that is kept: the demo adapters, and what an earlier version took
in.

The engine verifies these too, when it first loads them, and keeps that in its cache. So it is asked for the
verification when somebody wants to see it, which costs a second at first and nothing to speak of later. What it said is
remembered here until the server ends.
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

PATIENCE_S = 5.0  # how long one who reads a finetune waits; the engine goes on, and the next one finds it
MAX_WAITING = 8  # verifications that may be under way or wait for their turn; who comes then is shown none
MAX_KNOWN = 10_000  # verifications that are remembered; a few hundred bytes each


class BackgroundVerification:
    """Asks for one verification at a time, so that the verification of an upload waits for one of these at most."""

    def __init__(self) -> None:
        self._known: dict[AdapterRef, Verification | None] = {}  # None if the engine refused the adapter
        self._asked: dict[AdapterRef, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()

    def with_known(self, finetune: Finetune) -> Finetune:
        """The finetune with the verification that is remembered of it, if there is one and it has none itself."""
        current = finetune.current
        if current is None or current.verification is not None:
            return finetune
        return replace(finetune, current=replace(current, verification=self._known.get(_ref(current))))

    async def with_asked(self, finetune: Finetune, llm: AsyncLLM | None) -> Finetune:
        """The same, and the engine is asked. Without a verification if it cannot say in PATIENCE_S, or no engine is
        there.

        llm  the base of the finetune; None if it is not served
        """
        asked = self._ask(finetune, llm) if llm is not None else None
        if asked is not None:
            await asyncio.wait([asked], timeout=PATIENCE_S)
        return self.with_known(finetune)

    def begin(self, finetunes: Iterable[Finetune], llm: AsyncLLM) -> None:
        """Ask for verifications that nobody waits for yet."""
        for finetune in finetunes:
            self._ask(finetune, llm)

    async def close(self) -> None:
        """Wait for no verification any more."""
        asked = list(self._asked.values())
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    def _ask(self, finetune: Finetune, llm: AsyncLLM) -> asyncio.Task[None] | None:
        current = finetune.current
        if current is None or current.verification is not None or not llm.ready:
            return None
        ref = _ref(current)
        if ref in self._known:
            return None
        if ref not in self._asked:
            if len(self._asked) >= MAX_WAITING:
                return None
            self._asked[ref] = asyncio.create_task(self._learn(ref, llm))
            self._asked[ref].add_done_callback(lambda _: self._asked.pop(ref))
        return self._asked[ref]

    async def _learn(self, ref: AdapterRef, llm: AsyncLLM) -> None:
        verification = None
        async with self._turn:
            try:
                verification = await llm.verify(ref)
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
