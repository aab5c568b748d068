"""How far the checks are that run in this process. Kept in memory: a check that ends with the process is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from intaglio.finetunes.clock import Clock
from intaglio.finetunes.records import Check

STORING = "storing"  # files synced and put in place, rows written
VERIFYING = "verifying"  # the engine runs the adapter and compares


class Checks:
    """The running checks by finetune id. Any thread may look; each check is noted by the one thread that runs it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: dict[str, Check] = {}

    @contextmanager
    def running(self, finetune_id: str, file_name: str) -> Iterator[Callable[[str], None]]:
        """While the block runs the finetune has a check; what it gives is called with each step as it begins."""
        started_at = self._clock()

        def note(step: str) -> None:
            self._running[finetune_id] = Check(file_name, str(step), started_at, self._clock())

        note(STORING)
        try:
            yield note
        finally:
            self._running.pop(finetune_id, None)

    def of(self, finetune_id: str) -> Check | None:
        return self._running.get(finetune_id)
