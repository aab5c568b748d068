"""The progress of long work on stderr: a bar with the time left in a terminal, else a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[int, int], None]  # done so far, and in all
_LINE_EVERY_S = 10.0


@contextmanager
def work_progress(
    doing: str,
    unit: Literal["bytes", "tokens"],
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Report]:
    """Yields a callback. It shows nothing before the first call.

    doing           what is done, such as "packing"
    console, clock  for tests
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _lines(doing, console, clock)
        return
    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(doing, total=None, visible=False)

        def report(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total, visible=True)

        yield report


def _lines(doing: str, console: Console, clock: Callable[[], float]) -> Report:
    """One line every ten seconds; nothing for work that takes less."""
    began, first = clock(), 0  # what an earlier run had done does not count for the speed
    last = began

    def report(done: int, total: int) -> None:
        nonlocal last, began, first
        now = clock()
        if done == 0 or first == 0:
            first, began = max(done, 1), now
        if now - last < _LINE_EVERY_S:
            return
        last = now
        left = (now - began) / (done - first) * (total - done) if done > first else 0.0
        console.print(f"{doing}: {done / max(total, 1):.0%}, about {left:.0f} s left", highlight=False, markup=False)

    return report
