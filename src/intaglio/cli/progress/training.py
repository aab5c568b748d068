"""The progress of `intaglio train`: a bar in a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from intaglio.training.report import Evaluation, Report

_LINE_EVERY = 10  # steps between two lines without a terminal


def make_report(stream: TextIO) -> Report:
    """A bar if the stream is a terminal, else lines."""
    console = Console(file=stream)
    return BarReport(console) if console.is_terminal else LineReport(stream)


def evaluation_text(when: str, evaluation: Evaluation) -> str:
    exact = "" if evaluation.exact is None else f", exact answers {evaluation.exact:.1%}"
    return f"{when} training: held-out loss {evaluation.loss:.4f}, perplexity {evaluation.perplexity:.4g}{exact}"


class _Clock:
    """Measures the speed of a run, in tokens of examples per second since its first step began."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._tokens = 0
        self._started = time.monotonic()

    def add(self, tokens: int) -> None:
        self._tokens += tokens

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def tokens_per_second(self) -> float:
        return self._tokens / max(self.seconds, 1e-9)

    def seconds_left(self, done: int) -> float:
        return self.seconds / done * (self._steps - done)


class LineReport:
    """Prints one line for every tenth step."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._steps = 0
        self._clock = _Clock(0)

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def begin(self, steps: int) -> None:
        self._steps, self._clock = steps, _Clock(steps)

    def step(self, number: int, loss: float, learning_rate: float, tokens: int) -> None:
        self._clock.add(tokens)
        if number == 1 or number % _LINE_EVERY == 0 or number == self._steps:
            rate = f"learning rate {learning_rate:.2e}  {self._clock.tokens_per_second:.0f} tokens/s"
            times = f"{self._clock.seconds:.0f} s, about {self._clock.seconds_left(number):.0f} s left"
            self.note(f"step {number:>5}/{self._steps}  loss {loss:.4f}  {rate}  {times}")

    def end(self) -> None:
        pass

    def evaluated(self, when: str, evaluation: Evaluation) -> None:
        self.note(evaluation_text(when, evaluation))


class BarReport:
    """Shows one bar, with loss and speed next to it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._clock = _Clock(0)

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def begin(self, steps: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console)
        self._progress.start()
        self._clock = _Clock(steps)
        self._task = self._progress.add_task("training", total=steps)

    def step(self, number: int, loss: float, learning_rate: float, tokens: int) -> None:
        assert self._progress is not None, "begin comes first"
        self._clock.add(tokens)
        speed = f"{self._clock.tokens_per_second:.0f} tokens/s"
        self._progress.update(self._task, completed=number, description=f"loss {loss:.4f}, {speed}")

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def evaluated(self, when: str, evaluation: Evaluation) -> None:
        self.note(evaluation_text(when, evaluation))
