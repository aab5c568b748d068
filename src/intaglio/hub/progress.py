"""The interface by which a download reports its progress, and lines of text for it. The bar is in the command line."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

_LINE_EVERY_S = 15.0
_GB = 1e9


class DownloadProgress(Protocol):
    """Called by a download: `begin` once, `advance` for every piece, `end` also after an error."""

    def begin(self, model: str, num_files: int, total_bytes: int, done_bytes: int) -> None:
        """done_bytes: of the total, those that an interrupted download received before."""

    def advance(self, num_bytes: int) -> None:
        """num_bytes: negative if bytes have to be downloaded again."""

    def end(self) -> None: ...


class NoProgress:
    """For the few small files that are read before it is known how much there is to fetch."""

    def begin(self, model: str, num_files: int, total_bytes: int, done_bytes: int) -> None: ...

    def advance(self, num_bytes: int) -> None: ...

    def end(self) -> None: ...


class LineProgress:
    """A line at the start, at every tenth, and every 15 seconds where a tenth takes longer."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._model = ""
        self._total = self._done = self._first = 0
        self._started = self._told_at = 0.0
        self._told_tenths = 0

    def begin(self, model: str, num_files: int, total_bytes: int, done_bytes: int) -> None:
        self._model, self._total, self._done, self._first = model, total_bytes, done_bytes, done_bytes
        self._started = self._told_at = self._clock()
        self._told_tenths = 10 * done_bytes // max(total_bytes, 1)
        resumed = f", {size_text(done_bytes)} already here" if done_bytes else ""
        self._write(f"{model}: downloading {files_text(num_files)}, {size_text(total_bytes)}{resumed}")

    def advance(self, num_bytes: int) -> None:
        self._done += num_bytes
        now, tenths = self._clock(), 10 * self._done // max(self._total, 1)
        if tenths > self._told_tenths or now - self._told_at >= _LINE_EVERY_S:
            self._told_tenths, self._told_at = max(tenths, self._told_tenths), now
            self._write(self._line(now - self._started))

    def end(self) -> None:
        if self._done >= self._total:  # else it was interrupted, which its error says
            seconds, fetched = self._clock() - self._started, size_text(self._done - self._first)
            self._write(f"{self._model}: complete, {fetched} in {seconds:.0f} s")

    def _line(self, seconds: float) -> str:
        speed = (self._done - self._first) / max(seconds, 1e-9)
        left = (self._total - self._done) / speed if speed > 0 else 0.0
        share = f"{self._done / max(self._total, 1):.0%} of {size_text(self._total)}"
        return f"{self._model}: {share}, {speed / 1e6:.1f} MB/s, about {left:.0f} s left"


def files_text(num_files: int) -> str:
    return "1 file" if num_files == 1 else f"{num_files} files"


def size_text(num_bytes: int) -> str:
    """A size as people read it: 17.1 GB, 253 MB, 12 kB."""
    if num_bytes >= _GB:
        return f"{num_bytes / _GB:.1f} GB"
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"
