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
    last = clock()
    start: tuple[float, int] | None = None  # when, and what an earlier run had done, which does not count for the speed

    def report(done: int, total: int) -> None:
        nonlocal last, start
        now = clock()
        began, before = start = start or (now, done)
        if now - last < _LINE_EVERY_S:
            return
        last = now
        left = (now - began) / (done - before) * (total - done) if done > before else 0.0
        console.print(f"{doing}: {done / max(total, 1):.0%}, about {left:.0f} s left", highlight=False, markup=False)

    return report
