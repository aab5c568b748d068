"""Gets the verifications of adapters that have none in the database, such as the demo adapters.

The engine verifies every adapter when it first loads it, and has the verification in its cache from then on. So it is
asked for it when a finetune is read, which takes a second at first and little later. The result is remembered until the
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

MAX_WAIT_S = 5.0  # of a request that reads a finetune; the engine continues, and a later request finds the result
MAX_PENDING = 8  # verifications that run or wait; further finetunes are shown without one
MAX_KNOWN = 10_000  # remembered verifications, of a few hundred bytes each


class BackgroundVerification:
    """Asks for one verification at a time, so that an upload's verification waits for at most one of these."""

    def __init__(self) -> None:
        self._known: dict[AdapterRef, Verification | None] = {}  # None if the engine refused the adapter
        self._pending: dict[AdapterRef, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()

    def with_known(self, finetune: Finetune) -> Finetune:
        """The finetune with its remembered verification, unless it has a stored one."""
        current = finetune.current
        if current is None or current.verification is not None:
            return finetune
        return replace(finetune, current=replace(current, verification=self._known.get(_ref(current))))

    async def with_verification(self, finetune: Finetune, llm: AsyncLLM | None) -> Finetune:
        """Like `with_known`, but asks the engine first and waits up to MAX_WAIT_S for its result.

        llm  that answers for the base of the finetune; None if none does
        """
        pending = self._request(finetune, llm) if llm is not None else None
        if pending is not None:
            await asyncio.wait([pending], timeout=MAX_WAIT_S)
        return self.with_known(finetune)

    def begin(self, finetunes: Iterable[Finetune], llm: AsyncLLM) -> None:
        """Start verifications whose results are read later."""
        for finetune in finetunes:
            self._request(finetune, llm)

    async def close(self) -> None:
        """Cancel the pending verifications."""
        pending = list(self._pending.values())
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    def _request(self, finetune: Finetune, llm: AsyncLLM) -> asyncio.Task[None] | None:
        """The task that asks the engine; None if its result is known or it cannot be asked now."""
        current = finetune.current
        if current is None or current.verification is not None or not llm.ready:
            return None
        ref = _ref(current)
        if ref in self._known:
            return None
        if ref not in self._pending:
            if len(self._pending) >= MAX_PENDING:
                return None
            self._pending[ref] = asyncio.create_task(self._fetch(ref, llm))
            self._pending[ref].add_done_callback(lambda _: self._pending.pop(ref))
        return self._pending[ref]

    async def _fetch(self, ref: AdapterRef, llm: AsyncLLM) -> None:
        verification = None
        async with self._one_at_a_time:
            try:
                verification = (await llm.verify(ref.folder, ref.digest)).verification
            except AdapterError as error:
                logger.warning("adapter %s is not verified, and not served: %s", ref.digest[:12], error)
            except EngineError as error:  # the next read asks again
                logger.warning("adapter %s could not be verified now: %s", ref.digest[:12], error)
                return
        if len(self._known) >= MAX_KNOWN:
            self._known.pop(next(iter(self._known)))
        self._known[ref] = verification


def _ref(version: FinetuneVersion) -> AdapterRef:
    return AdapterRef(version.digest, str(version.folder))
