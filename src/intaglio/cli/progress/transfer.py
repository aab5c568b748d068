"""A progress bar on stderr for each file that is sent or received; nothing if stderr is not a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn, TransferSpeedColumn

from intaglio.client.finetunes import Progress as Report


@contextmanager
def transfer_progress(doing: str, after: str = "done") -> Iterator[Report]:
    """Yields a callback for the progress of files. doing, after: texts while a file is transferred, and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _name, _done, _total: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as bars:

        def report(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(f"{doing} {name}", total=total)
            bars.update(tasks[name], completed=done)
            if total is not None and done >= total:
                bars.update(tasks[name], description=f"{name}: {after}")

        yield report
