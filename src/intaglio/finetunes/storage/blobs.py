"""Adapter files on disk, named by what is in them.

    incoming/   files being written and folders being checked: `Incoming`
    blobs/ab/   one file per content, named by its SHA-256
    adapters/   one folder per accepted pair, its two files hard links to blobs: each content is on the disk once

A file is written under incoming/, synced, then renamed into place, and the folder synced: after a crash it is there
whole or not at all. A row in the catalogue is written only afterwards, so what no row points to is rubbish: `remove`
takes it at once, and `sweep` what a crash left. Between the moment at which a file is in place and the one at which a
row points to it, `placing` keeps others from taking it for rubbish.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from intaglio.files.atomic_write import sync_folder
from intaglio.finetunes.records import StoredFile
from intaglio.finetunes.storage.staging import Incoming, StagedFile

Unused = Callable[[Iterable[str], Iterable[str]], tuple[set[str], set[str]]]  # blobs and folders -> those without row


class Swept(NamedTuple):
    """What a sweep removed, and whether somebody was on the way in with a file."""

    num_removed: int
    uploads_run: bool


class FileStore:
    """The folders above, under one root that is made if missing."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._adapters = root / "adapters"
        self._lock_path = root / "files.lock"
        for folder in (root / "incoming", self._blobs, self._adapters):
            folder.mkdir(parents=True, exist_ok=True)
        self._incoming = Incoming(root / "incoming")

    def stage(self) -> StagedFile:
        """A new file to write to; use it as a context manager."""
        return self._incoming.stage()

    def assembled(self, files: Mapping[str, Path]) -> AbstractContextManager[Path]:
        """A folder in which the given files have their right names, gone afterwards unless it was kept."""
        return self._incoming.assembled(files)

    @contextmanager
    def placing(self) -> Iterator[None]:
        """The lock that is held while files and rows change together, by one thread of one process at a time."""
        with self._lock_path.open("ab") as file:  # opened anew, since threads of one process share an open file's lock
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def keep(self, staged: StagedFile) -> None:
        """Move a finished file to its place in blobs/, unless its content is there. Durable when this returns."""
        staged.finish()
        blob = self.blob_path(staged.sha256)
        blob.parent.mkdir(exist_ok=True)
        sync_folder(self._blobs)
        if not blob.exists():  # one that is there has links in folders, and replaced it would live on there beside ours
            staged.path.replace(blob)
        sync_folder(blob.parent)

    def blob_path(self, sha256: str) -> Path:
        return self._blobs / sha256[:2] / sha256

    def keep_folder(self, folder: Path, files: Mapping[str, StoredFile]) -> None:
        """Move an assembled folder of these files to its place. Durable when this returns."""
        place = self.folder_path(folder_key(files))
        if not place.is_dir():  # another finetune may have the same two files: share its folder
            for name, file in files.items():
                self._link_to_blob(folder / name, file.sha256)
            sync_folder(folder)
            folder.rename(place)
        sync_folder(self._adapters)

    def folder_path(self, key: str) -> Path:
        return self._adapters / key

    def remove(self, blobs: Iterable[str], folders: Iterable[str]) -> None:
        """Remove these; what is gone already is no fault. Who has a file open reads on. Needs `placing`."""
        for key in folders:
            aside = self._incoming.new_path()
            try:
                self.folder_path(key).rename(aside)  # so that a folder is never there in part
            except FileNotFoundError:
                continue
            shutil.rmtree(aside)
        for sha256 in blobs:
            self.blob_path(sha256).unlink(missing_ok=True)

    def _link_to_blob(self, path: Path, sha256: str) -> None:
        """A file that came in while its content was in blobs/ is a second copy of that: let it be the first.

        A blob may be gone, if its row is: then the folder gets none either, which is for the catalogue to say.
        """
        blob = self.blob_path(sha256)
        if blob.exists() and not path.samefile(blob):
            aside = self._incoming.new_path()
            os.link(blob, aside)
            aside.replace(path)

    def sweep(self, unused: Unused) -> Swept:
        """Remove what nobody works on and no row points to. Needs `placing`."""
        num_removed, uploads_run = self._incoming.sweep()
        blobs, folders = unused(
            [path.name for path in self._blobs.glob("*/*")], [path.name for path in self._adapters.iterdir()]
        )
        self.remove(blobs, folders)
        return Swept(num_removed + len(blobs) + len(folders), uploads_run)


def folder_key(files: Mapping[str, StoredFile]) -> str:
    """Name of the folder that holds these files: the hash of their names and contents."""
    names = "\n".join(f"{name} {files[name].sha256}" for name in sorted(files))
    return hashlib.sha256(names.encode()).hexdigest()
