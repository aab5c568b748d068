"""An adapter check that stops at a step until the test lets it go on, and threads beside the test."""

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
    """Lets the check of a pair begin and holds it at one step until `go` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: ReadStep) -> None:
        self.inside = threading.Event()
        self.go = threading.Event()
        self.steps: list[ReadStep] = []
        self._step = step
        monkeypatch.setattr("intaglio.finetunes.upload.check_pair", self._check)

    def _check(self, folder: Path, config: ModelConfig, limits: AdapterLimits, note: OnStep) -> None:
        def held(step: ReadStep) -> None:
            note(step)
            self.steps.append(step)
            if step is self._step:
                self.inside.set()
                assert self.go.wait(DEADLINE_S)

        check_pair(folder, config, limits, held)


def in_thread(act: Callable[[], T]) -> Future[T]:
    """Run `act` beside the test; its result or error comes from the future."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(act)
    pool.shutdown(wait=False)
    return future
