"""An adapter check that pauses at a step until the test resumes it, and functions in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from intaglio.lora.peft.reader import AdapterLimits, OnStep, ReadStep, check_pair
from intaglio.model.config import ModelConfig

DEADLINE_S = 30

T = TypeVar("T")


class PausedCheck:
    """Pauses the check of an upload at one step: `reached` is set there, and it waits until `resume` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: ReadStep) -> None:
        self.reached = threading.Event()
        self.resume = threading.Event()
        self.steps: list[ReadStep] = []
        self._step = step
        monkeypatch.setattr("intaglio.finetunes.upload.check_pair", self._check)

    def _check(self, folder: Path, config: ModelConfig, limits: AdapterLimits, on_step: OnStep) -> None:
        def pause_at_step(step: ReadStep) -> None:
            on_step(step)
            self.steps.append(step)
            if step is self._step:
                self.reached.set()
                assert self.resume.wait(DEADLINE_S)

        check_pair(folder, config, limits, pause_at_step)


def in_thread(act: Callable[[], T]) -> Future[T]:
    """Run `act` in a thread; the future has its result or error."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(act)
    pool.shutdown(wait=False)
    return future
