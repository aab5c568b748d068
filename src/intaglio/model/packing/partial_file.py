"""The packed file while it is written: FILE.part, and FILE.part.journal, by which a killed run is resumed.

    journal    one line of JSON: the key of the plan; then one for each finished tensor: its name and SHA-256

A tensor is in the journal only after its bytes were synced. The next run reads the finished tensors again, compares
their digests, and continues after the last one that is intact. A run holds a lock on the journal.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import PackingError, StorageFullError
from intaglio.files.atomic_write import sync_folder
from intaglio.model.packing.plan import Item, PackPlan

logger = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_BYTES = 4 << 20


class PartialFile:
    """A context manager. The files stay if the block ends without `finish`."""

    def __init__(self, target: Path, plan: PackPlan) -> None:
        """Open or begin the file. Raises PackingError if another process writes it or it cannot be written,
        StorageFullError if the disk has too little space for the rest.
        """
        self._target, self._plan = target, plan
        self.path = target.with_name(f"{target.name}.part")
        self._journal_path = target.with_name(f"{target.name}.part.journal")
        self._check_room()
        self._digests: dict[str, str] = {}
        self._data_start = len(plan.header({}))
        try:
            self._journal = self._journal_path.open("a+b")
        except OSError as error:
            raise PackingError(f"{target} cannot be written: {error.strerror}") from error
        try:
            self._lock()
            with self._faults():
                self._file = _open_for_update(self.path)
                try:
                    self._resume()
                except BaseException:
                    self._file.close()
                    raise
        except BaseException:
            self._journal.close()
            raise

    @property
    def num_done(self) -> int:
        """How many of the plan's items are written."""
        return len(self._digests)

    def write(self, item: Item, chunks: Iterator[NDArray[np.uint8]]) -> Iterator[int]:
        """Append the next item. Yields the number of its bytes after each chunk. Raises StorageFullError."""
        digest, written = hashlib.sha256(), 0
        for chunk in chunks:
            content = chunk.data
            with self._faults():
                self._write_all(content)
            digest.update(content)
            written += content.nbytes
            yield written
        assert written == item.num_bytes, f"{item.name}: {written} bytes written, {item.num_bytes} planned"
        with self._faults():
            os.fsync(self._file.fileno())
            self._note({"name": item.name, "sha256": digest.hexdigest()})
        self._digests[item.name] = digest.hexdigest()

    def finish(self) -> None:
        """Write the header with every digest, and give the file its name."""
        with self._faults():
            self._file.seek(0)
            self._write_all(memoryview(self._plan.header(self._digests)))
            os.fsync(self._file.fileno())
            self.path.replace(self._target)
            self._journal_path.unlink()
            sync_folder(self._target.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._file, self._journal):
            _close_quietly(file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PackingError(f"{self._target} is being written by another process") from None

    def _resume(self) -> None:
        """Find the finished items that are intact, and cut off what follows them."""
        position = self._data_start
        for item, sha256 in self._journaled():
            if _digest(self._file, position, item.num_bytes) != sha256:
                logger.warning("%s: %s is damaged; packing resumes there", self.path, item.name)
                break
            self._digests[item.name] = sha256
            position += item.num_bytes
        self._file.truncate(position)
        self._file.seek(0)
        self._write_all(memoryview(self._plan.header({})))
        self._file.seek(position)
        self._journal.truncate(0)  # rewritten, because its last line may be cut off
        self._note({"key": self._plan.key})
        for name, sha256 in self._digests.items():
            self._note({"name": name, "sha256": sha256})

    def _journaled(self) -> list[tuple[Item, str]]:
        """The finished items with their digests, in the order of the plan; none if the journal is of another plan."""
        self._journal.seek(0)
        lines = [_parsed(line) for line in self._journal.read().splitlines()]
        if lines and lines[0].get("key") != self._plan.key:
            logger.warning("%s is of another source, format or calibration; packing starts anew", self.path)
            return []
        found: list[tuple[Item, str]] = []
        for item, line in zip(self._plan.items, lines[1:], strict=False):
            if line.get("name") != item.name or "sha256" not in line:
                break
            found.append((item, line["sha256"]))
        return found

    def _write_all(self, content: memoryview) -> None:
        """A full disk takes a part of the bytes first, and refuses the rest at the next call."""
        while content:
            content = content[self._file.write(content) :]

    def _note(self, line: dict[str, str]) -> None:
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def _check_room(self) -> None:
        needed = self._plan.num_bytes - (self.path.stat().st_size if self.path.is_file() else 0)
        free = shutil.disk_usage(self._target.absolute().parent).free
        if needed > free:
            raise StorageFullError(
                f"{self._target} needs {_mb(needed)} more, and its disk has {_mb(free)} free; nothing was written"
            )

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                done = sum(item.num_bytes for item in self._plan.items[: self.num_done])
                raise StorageFullError(
                    f"no space for {self._target} ({error.strerror}): {_mb(done)} of {_mb(self._plan.num_bytes)} are "
                    f"kept in {self.path.name}; free some space, and the same command resumes there"
                ) from error
            raise PackingError(f"{self._target} cannot be written: {error.strerror}") from error


def _open_for_update(path: Path) -> io.FileIO:
    """Without a buffer: bytes that could not be written must not be tried again when the file is closed."""
    return io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+")


def _close_quietly(file: BinaryIO | io.FileIO) -> None:
    try:
        file.close()
    except OSError as error:  # the end of the journal did not fit on the disk; the next run reads it up to there
        logger.debug("closing: %s", error)


def _digest(file: io.FileIO, start: int, size: int) -> str:
    digest = hashlib.sha256()
    file.seek(start)
    while size and (chunk := file.read(min(size, _READ_BYTES))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest() if size == 0 else ""


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:  # cut off by the end of its process
        return {}
    return found if isinstance(found, dict) else {}


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
