"""Verifications requested by the API process, run one after the other in a thread next to the engine's loop.

A verification computes with the same kernels as the engine's steps. Each kernel call uses them for a moment only, so
running requests go on, somewhat slower.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from intaglio.engine.protocol import VerificationResult
from intaglio.errors import AdapterError
from intaglio.request import VerifiedAdapter

logger = logging.getLogger(__name__)


class VerificationQueue:
    """Adapters to verify, and the results.

    verify       verifies the adapter in a folder, which must have the digest that is given; raises AdapterError. Called
                 in the queue's thread
    on_finished  called in that thread when there is a new result
    """

    def __init__(self, verify: Callable[[str, str | None], VerifiedAdapter], on_finished: Callable[[], None]) -> None:
        self._verify = verify
        self._on_finished = on_finished
        self._results: queue.SimpleQueue[VerificationResult] = queue.SimpleQueue()
        self._thread = ThreadPoolExecutor(1, "verifier")

    def add(self, request_id: str, folder: str, digest: str | None) -> None:
        self._thread.submit(self._verify_and_report, request_id, folder, digest)

    def pop_results(self) -> list[VerificationResult]:
        """The results since the last call."""
        return [self._results.get_nowait() for _ in range(self._results.qsize())]

    def close(self) -> None:
        """Begin no further verification; one that runs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _verify_and_report(self, request_id: str, folder: str, digest: str | None) -> None:
        try:
            result = VerificationResult(request_id, verified=self._verify(folder, digest))
        except AdapterError as error:
            result = VerificationResult(request_id, refused=str(error))
        except Exception as error:  # the machine's fault or ours; it is reported, and the next verification begins
            logger.exception("the adapter in %s could not be verified", folder)
            result = VerificationResult(request_id, failed=f"verification failed: {type(error).__name__}: {error}")
        self._results.put(result)
        self._on_finished()
