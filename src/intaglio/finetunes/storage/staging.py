"""Files and folders on their way in, each locked by whoever works on it.

The kernel drops the lock of a killed process. So what nobody has locked is rubbish, whichever server on the data folder
left it, and what somebody has locked is not.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from intaglio.finetunes.storage.full_disk import full_disk_as_error


class StagedFile:
    """A file on its way in: hashed while it is written, gone when the `with` block ends unless it was kept.

    Writing and finishing raise StorageFullError when there is no room.
    """

    def __init__(self, folder: Path) -> None:
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        with full_disk_as_error():
            self.path, descriptor = _locked(folder, _new_file)
        self._file = os.fdopen(descriptor, "wb")
        self._finished = False

    def write(self, chunk: bytes) -> None:
        with full_disk_as_error():
            self._file.write(chunk)
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    def finish(self) -> None:
        """Everything is written: put it on the disk for good. May be called twice. The lock stays."""
        if not self._finished:
            with full_disk_as_error():
                self._file.flush()
                os.fsync(self._file.fileno())
            self._finished = True

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError:  # the last piece did not fit on the disk, and nobody needs it any more
            if error is None:
                raise
        finally:
            self.path.unlink(missing_ok=True)


class Incoming:
    """The folder of what is on its way in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stage(self) -> StagedFile:
        """A new file to write to; use it as a context manager."""
        return StagedFile(self._folder)

    @contextmanager
    def assembled(self, files: Mapping[str, Path]) -> Iterator[Path]:
        """A folder in which the given files have their right names, gone afterwards unless it was moved away."""
        path, descriptor = _locked(self._folder, _new_folder)
        try:
            for name, source in files.items():
                os.link(source, path / name)
            yield path
        finally:
            try:
                if path.exists():
                    shutil.rmtree(path)
            finally:
                os.close(descriptor)

    def new_path(self) -> Path:
        """Where something can be put aside that is removed next."""
        return self._folder / uuid4().hex

    def sweep(self) -> tuple[int, bool]:
        """Remove what nobody works on. Returns how many things that were, and whether anything is being worked on."""
        removed, alive = 0, False
        for path in self._folder.iterdir():
            try:
                with _descriptor(path) as descriptor:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(path)
                    removed += 1
            except BlockingIOError:
                alive = True
            except FileNotFoundError:  # kept, or removed by whoever worked on it
                continue
        return removed, alive


def _locked(folder: Path, make: Callable[[Path], int | None]) -> tuple[Path, int]:
    """Something new in the folder, and a descriptor of it that holds its lock.

    Between the making and the locking a sweep may take it for rubbish; then another one is made.
    """
    while True:
        path = folder / uuid4().hex
        descriptor = make(path)
        if descriptor is None:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return path, descriptor
        os.close(descriptor)


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _new_folder(path: Path) -> int | None:
    """None if it is gone before it is open."""
    path.mkdir()
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None


@contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
