"""Adapter files on disk, named by the hash of their content.

    incoming/   files being written and folders being checked: `StagingFolder`
    blobs/ab/   one file per content, named by its SHA-256
    adapters/   one folder per accepted pair, its two files hard links to blobs: each content is on the disk once

A file is written under incoming/, synced, then renamed into place, and the folder synced: after a crash it is complete
or absent. Its row is written afterwards, so a file that no row points to is garbage: `remove` deletes it at once,
`collect` what a crash left. `lock` is held from before a file is in place until a row points to it, so that no other
process takes it for garbage.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from intaglio.files.atomic_write import sync_folder
from intaglio.finetunes.records import StoredFile
from intaglio.finetunes.storage.staging import StagedFile, StagingFolder

# Blobs and folders -> those that no row points to.
FindUnused = Callable[[Iterable[str], Iterable[str]], tuple[set[str], set[str]]]


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A stored file that is open for reading. The caller closes `file`."""

    file: BinaryIO
    name: str
    stored: StoredFile


class Collected(NamedTuple):
    """How many files and folders were removed, and whether an upload was in progress."""

    num_removed: int
    uploads_in_progress: bool


class FileStore:
    """The folders above, under one root; they are made if missing.

    staging  incoming/
    """

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._adapters = root / "adapters"
        self._lock_path = root / "files.lock"
        for folder in (root / "incoming", self._blobs, self._adapters):
            folder.mkdir(parents=True, exist_ok=True)
        self.staging = StagingFolder(root / "incoming")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The lock that one thread of one process at a time holds while it changes files and rows together."""
        with self._lock_path.open("ab") as file:  # opened anew: threads that share an open file share its lock
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def add_blob(self, staged: StagedFile) -> None:
        """Move a staged file into blobs/, unless its content is there already. Durable when this returns."""
        staged.finish()
        blob = self.blob_path(staged.sha256)
        blob.parent.mkdir(exist_ok=True)
        sync_folder(self._blobs)
        if not blob.exists():  # folders may have links to it: if it were replaced, they would keep a second copy
            staged.path.replace(blob)
        sync_folder(blob.parent)

    def blob_path(self, sha256: str) -> Path:
        return self._blobs / sha256[:2] / sha256

    def add_folder(self, folder: Path, files: Mapping[str, StoredFile]) -> None:
        """Move a staged folder of these files into adapters/. Durable when this returns."""
        place = self.folder_path(folder_key(files))
        if not place.is_dir():  # finetunes with the same two files share a folder
            for name, file in files.items():
                self._link_to_blob(folder / name, file.sha256)
            sync_folder(folder)
            folder.rename(place)
        sync_folder(self._adapters)

    def folder_path(self, key: str) -> Path:
        return self._adapters / key

    def remove(self, blobs: Iterable[str], folders: Iterable[str]) -> None:
        """Remove those of these that exist. A file that is open can be read to its end. Needs `lock`."""
        for key in folders:
            aside = self.staging.new_path()
            try:
                self.folder_path(key).rename(aside)  # so that no folder is ever incomplete
            except FileNotFoundError:
                continue
            shutil.rmtree(aside)
        for sha256 in blobs:
            self.blob_path(sha256).unlink(missing_ok=True)

    def _link_to_blob(self, path: Path, sha256: str) -> None:
        """Replace the file by a link to its blob, of which it is a second copy if the blob was there before.

        The blob may have been removed with its row; then the repository refuses the upload.
        """
        blob = self.blob_path(sha256)
        if blob.exists() and not path.samefile(blob):
            aside = self.staging.new_path()
            os.link(blob, aside)
            aside.replace(path)

    def collect(self, find_unused: FindUnused) -> Collected:
        """Remove what no process uses and no row points to. Needs `lock`."""
        num_removed, in_progress = self.staging.remove_unlocked()
        blobs, folders = find_unused(
            [path.name for path in self._blobs.glob("*/*")], [path.name for path in self._adapters.iterdir()]
        )
        self.remove(blobs, folders)
        return Collected(num_removed + len(blobs) + len(folders), in_progress)


def folder_key(files: Mapping[str, StoredFile]) -> str:
    """Name of the folder that holds these files: the hash of their names and contents."""
    names = "\n".join(f"{name} {files[name].sha256}" for name in sorted(files))
    return hashlib.sha256(names.encode()).hexdigest()
