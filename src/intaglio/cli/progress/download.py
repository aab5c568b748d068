"""The progress of a download from the hub: a bar on stderr with size, speed and time left, or lines."""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from intaglio.hub import DownloadProgress, LineProgress
from intaglio.hub.progress import files_text

logger = logging.getLogger(__name__)


def download_progress(*, log: bool = False, console: Console | None = None) -> DownloadProgress:
    """A bar if stderr is a terminal. log: write the lines of other outputs to the log instead of stderr."""
    console = console or Console(stderr=True)
    if console.is_terminal:
        return DownloadBar(console)
    return LineProgress(logger.info if log else _print)


class DownloadBar:
    """One bar over all files of a model."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._task = TaskID(0)

    def begin(self, model: str, num_files: int, total_bytes: int, done_bytes: int) -> None:
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            TimeRemainingColumn(),
        )  # fmt: skip
        self._bars = Progress(*columns, console=self._console)
        self._bars.start()
        self._task = self._bars.add_task(f"{model} ({files_text(num_files)})", total=total_bytes, completed=done_bytes)

    def advance(self, num_bytes: int) -> None:
        assert self._bars is not None, "begin comes first"
        self._bars.advance(self._task, num_bytes)

    def end(self) -> None:
        if self._bars is not None:
            self._bars.stop()


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
