"""What `intaglio train` shows: a bar in a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from intaglio.training.report import Evaluation, Report

_LINE_EVERY = 10  # steps between two lines where there is no terminal


def make_report(stream: TextIO) -> Report:
    """The report that fits the stream."""
    console = Console(file=stream)
    return BarReport(console) if console.is_terminal else LineReport(stream)


def evaluation_text(when: str, evaluation: Evaluation) -> str:
    exact = "" if evaluation.exact is None else f", exact answers {evaluation.exact:.1%}"
    return f"{when} training: held-out loss {evaluation.loss:.4f}, perplexity {evaluation.perplexity:.4g}{exact}"


class LineReport:
    """One line for every tenth step."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._steps = 0
        self._started = 0.0

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def begin(self, steps: int) -> None:
        self._steps, self._started = steps, time.monotonic()

    def step(self, number: int, loss: float, learning_rate: float) -> None:
        if number == 1 or number % _LINE_EVERY == 0 or number == self._steps:
            seconds = time.monotonic() - self._started
            rate = f"learning rate {learning_rate:.2e}"
            self.note(f"step {number:>5}/{self._steps}  loss {loss:.4f}  {rate}  {seconds:.0f} s")

    def end(self) -> None:
        pass

    def evaluated(self, when: str, evaluation: Evaluation) -> None:
        self.note(evaluation_text(when, evaluation))


class BarReport:
    """One bar, with the loss beside it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def begin(self, steps: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console)
        self._progress.start()
        self._task = self._progress.add_task("training", total=steps)

    def step(self, number: int, loss: float, learning_rate: float) -> None:
        assert self._progress is not None, "begin comes first"
        self._progress.update(self._task, completed=number, description=f"loss {loss:.4f}")

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def evaluated(self, when: str, evaluation: Evaluation) -> None:
        self.note(evaluation_text(when, evaluation))
