"""Verifications that somebody asked for, made in a thread beside the engine's loop, one after the other.

A verification computes with the same kernels as the engine's steps. Each call holds them for a moment only, so what
runs goes on meanwhile, somewhat slower.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from intaglio.engine.protocol import Verified
from intaglio.errors import AdapterError
from intaglio.request import AdapterRef, Verification

logger = logging.getLogger(__name__)


class VerificationQueue:
    """What was asked for and what came of it.

    verify     verifies one adapter; raises AdapterError. Called in a thread
    finished  is called in that thread when `take` has something new
    """

    def __init__(self, verify: Callable[[AdapterRef], Verification], finished: Callable[[], None]) -> None:
        self._verify = verify
        self._finished = finished
        self._results: queue.SimpleQueue[Verified] = queue.SimpleQueue()
        self._thread = ThreadPoolExecutor(1, "verifier")

    def add(self, request_id: str, ref: AdapterRef) -> None:
        self._thread.submit(self._run, request_id, ref)

    def take(self) -> list[Verified]:
        """What has come since the last time."""
        return [self._results.get_nowait() for _ in range(self._results.qsize())]

    def close(self) -> None:
        """Begin no more of them; what is at work is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self, request_id: str, ref: AdapterRef) -> None:
        try:
            result = Verified(request_id, verification=self._verify(ref))
        except AdapterError as error:
            result = Verified(request_id, refused=str(error))
        except Exception as error:  # the machine's fault or ours; who asked is told, and the next one has its turn
            logger.exception("adapter %s could not be verified", ref.digest[:12])
            result = Verified(request_id, failed=f"the verification failed: {type(error).__name__}: {error}")
        self._results.put(result)
        self._finished()
