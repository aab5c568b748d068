"""Uploads in progress: files being written and folders being checked, each locked by the process that uses it.

The kernel releases the locks of a killed process, so a file or folder that is not locked is garbage.
"""

from __future__ import annotations

import errno
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

from intaglio.errors import StorageFullError


@contextmanager
def full_disk_as_error() -> Iterator[None]:
    """Raise StorageFullError in place of an OSError for a full disk or quota."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError() from error
        raise


class StagedFile:
    """A file being uploaded: hashed while it is written, removed when the `with` block ends unless it was moved.

    Writing and finishing raise StorageFullError when the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        with full_disk_as_error():
            self.path, descriptor = _create_locked(folder, _new_file)
        self._file = os.fdopen(descriptor, "wb")
        self._finished = False

    def write(self, chunk: bytes) -> None:
        with full_disk_as_error():
            self._file.write(chunk)
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    def finish(self) -> None:
        """Sync the file to the disk after the last write. May be called twice. The lock stays."""
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
        except OSError:  # the last piece did not fit on the disk, and the file is removed anyway
            if error is None:
                raise
        finally:
            self.path.unlink(missing_ok=True)


class StagingFolder:
    """The folder of uploads in progress."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new_file(self) -> StagedFile:
        """A file to write an upload to; use it as a context manager."""
        return StagedFile(self._folder)

    @contextmanager
    def new_folder(self, files: Mapping[str, Path]) -> Iterator[Path]:
        """A folder with links to these files under these names, removed afterwards unless it was moved."""
        path, descriptor = _create_locked(self._folder, _new_folder)
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
        """An unused path in the folder."""
        return self._folder / uuid4().hex

    def remove_unlocked(self) -> tuple[int, bool]:
        """Remove what no process uses. Returns how many entries were removed, and whether others are in use."""
        removed, in_use = 0, False
        for path in self._folder.iterdir():
            try:
                with _open_descriptor(path) as descriptor:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(path)
                    removed += 1
            except BlockingIOError:
                in_use = True
            except FileNotFoundError:  # moved or removed by the process that used it
                continue
        return removed, in_use


def _create_locked(folder: Path, make: Callable[[Path], int | None]) -> tuple[Path, int]:
    """Make a file or folder and lock it. Returns its path, and the descriptor that holds the lock.

    If garbage collection removes it before it is locked, another one is made.
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
    """None if it was removed before it was open."""
    path.mkdir()
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None


@contextmanager
def _open_descriptor(path: Path) -> Iterator[int]:
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
