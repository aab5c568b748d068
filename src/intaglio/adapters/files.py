"""Adapter files on disk, named by what is in them.

    incoming/   files being written and folders being checked; emptied at start
    blobs/ab/   one file per content, named by its SHA-256
    adapters/   one folder per accepted pair, its two files hard links to blobs

A file is written under incoming/, synced, then renamed into place, and the folder synced: after a crash it is there
whole or not at all. A row in the catalogue is written only afterwards, so what no row points to is rubbish: `remove`
takes it at once, and what a crash left `sweep` takes at the next start. Between the moment at which a file is in place
and the one at which a row points to it, `placing` keeps others from taking it for rubbish.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from intaglio.adapters.records import StoredFile


class StagedFile:
    """A file on its way in: hashed while it is written, gone when the `with` block ends unless it was kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        self._file = path.open("xb")

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    def finish(self) -> None:
        """Everything is written: put it on the disk for good and close it. May be called twice."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

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


class FileStore:
    """The folders above, under one root that is made if missing."""

    def __init__(self, root: Path) -> None:
        self._incoming = root / "incoming"
        self._blobs = root / "blobs"
        self._adapters = root / "adapters"
        self._lock_path = root / "files.lock"
        for folder in (self._incoming, self._blobs, self._adapters):
            folder.mkdir(parents=True, exist_ok=True)

    def stage(self) -> StagedFile:
        """A new file to write to; use it as a context manager."""
        return StagedFile(self._incoming / uuid4().hex)

    @contextmanager
    def placing(self) -> Iterator[None]:
        """The lock that is held while files and rows change together, by one thread of one process at a time."""
        with self._lock_path.open("ab") as file:  # opened anew, since threads of one process share an open file's lock
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def keep(self, staged: StagedFile) -> None:
        """Move a finished file to its place in blobs/. Durable when this returns."""
        staged.finish()
        blob = self.blob_path(staged.sha256)
        if not blob.parent.exists():
            blob.parent.mkdir(exist_ok=True)
            _sync_folder(self._blobs)
        staged.path.replace(blob)  # the same content may be there already: replacing it changes nothing
        _sync_folder(blob.parent)

    def blob_path(self, sha256: str) -> Path:
        return self._blobs / sha256[:2] / sha256

    @contextmanager
    def assembled(self, files: Mapping[str, Path]) -> Iterator[Path]:
        """A folder in which the given files have their right names, gone afterwards unless it was kept."""
        folder = self._incoming / uuid4().hex
        folder.mkdir()
        try:
            for name, path in files.items():
                os.link(path, folder / name)
            yield folder
        finally:
            if folder.exists():
                shutil.rmtree(folder)

    def keep_folder(self, folder: Path, key: str) -> None:
        """Move an assembled folder to its place, under the name that `folder_key` has for it."""
        _sync_folder(folder)
        try:
            folder.rename(self.folder_path(key))
        except OSError:  # another finetune may have the same two files: share its folder
            if not self.folder_path(key).is_dir():
                raise
        _sync_folder(self._adapters)

    def folder_path(self, key: str) -> Path:
        return self._adapters / key

    def remove(self, blobs: Iterable[str], folders: Iterable[str]) -> None:
        """Remove these; what is gone already is no fault. Who has a file open reads on."""
        for key in folders:
            aside = self._incoming / uuid4().hex
            try:
                self.folder_path(key).rename(aside)  # so that a folder is never there in part
            except FileNotFoundError:
                continue
            shutil.rmtree(aside)
        for sha256 in blobs:
            self.blob_path(sha256).unlink(missing_ok=True)

    def sweep(self, blobs: set[str], folders: set[str]) -> int:
        """Remove everything but the named blobs and folders. Returns how many things were removed."""
        rubbish = list(self._incoming.iterdir())
        rubbish += [path for path in self._adapters.iterdir() if path.name not in folders]
        rubbish += [path for path in self._blobs.glob("*/*") if path.name not in blobs]
        for path in rubbish:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        return len(rubbish)


def folder_key(files: Mapping[str, StoredFile]) -> str:
    """Name of the folder that holds these files: the hash of their names and contents."""
    names = "\n".join(f"{name} {files[name].sha256}" for name in sorted(files))
    return hashlib.sha256(names.encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make renames within the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
