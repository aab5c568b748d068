"""The hub's cache on the disk, in the layout that every program shares which uses huggingface_hub:

    models--OWNER--REPO/
      refs/main                    the commit that a branch or tag had when it was last seen
      blobs/HASH                   contents
      snapshots/COMMIT/NAME        a link to ../../blobs/HASH
    intaglio/REFERENCE.json      ours: the model that a reference was last, once all of its files were here

A file is in a snapshot only once it is complete and its hash is right.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from intaglio.files.atomic_write import atomic_write, sync_folder
from intaglio.hub.reference import HubReference
from intaglio.hub.remote import RemoteFile


class CompleteModel(msgspec.Struct, frozen=True):
    """What a reference was when all of its files were here.

    files  as the repository names them
    first  the first part of a GGUF file; None if the folder is the model
    """

    commit: str
    files: list[str]
    first: str | None


class RepositoryCache:
    """The part of the cache that belongs to one repository."""

    def __init__(self, cache_dir: Path, repo: str) -> None:
        self._root = cache_dir / f"models--{repo.replace('/', '--')}"
        self._locks = cache_dir / ".locks" / self._root.name

    @property
    def path(self) -> Path:
        return self._root

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit; it need not exist."""
        return self._root / "snapshots" / commit

    def known_commit(self, revision: str) -> str | None:
        """The commit that a branch or tag had when it was last seen."""
        file = self._root / "refs" / revision
        return file.read_text("utf-8", errors="replace").strip() if file.is_file() else None

    def remember(self, reference: HubReference, model: CompleteModel) -> None:
        """Record what the reference is now. `refs` cannot tell: a commit stands there before its files are here."""
        record = self._record(reference)
        if self.remembered(reference) != model:
            record.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(record) as file:
                file.write(msgspec.json.encode(model))

    def remembered(self, reference: HubReference) -> CompleteModel | None:
        """The model of the last `remember`; None if there is none, or a file of it is gone."""
        try:
            model = msgspec.json.decode(self._record(reference).read_bytes(), type=CompleteModel)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        folder = self.snapshot(model.commit)
        return model if all((folder / name).is_file() for name in model.files) else None

    def _record(self, reference: HubReference) -> Path:
        return self._root / "intaglio" / f"{hashlib.sha256(str(reference).encode()).hexdigest()[:32]}.json"

    def names(self, commit: str) -> set[str]:
        """The files of a commit that are here, as the repository names them."""
        folder = self.snapshot(commit)
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    def blob(self, file: RemoteFile) -> Path:
        return self._root / "blobs" / file.blob

    def partial(self, file: RemoteFile) -> Path:
        """Where a file is written until it is complete. The hub's own tools clean up files with this ending."""
        return self._root / "blobs" / f"{file.blob}.intaglio.incomplete"

    def holds(self, file: RemoteFile, commit: str) -> bool:
        """Whether the file is in the folder of the commit."""
        return (self.snapshot(commit) / file.name).is_file()

    def num_bytes_here(self, file: RemoteFile) -> int:
        """Bytes of the file that need not be fetched."""
        if self.blob(file).is_file():
            return file.size
        partial = self.partial(file)
        return min(partial.stat().st_size, file.size) if partial.is_file() else 0

    def free_bytes(self) -> int:
        """Free space on the disk of the cache."""
        folder = self._root
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    @contextmanager
    def lock(self, file: RemoteFile) -> Iterator[None]:
        """Held while a file is fetched: a second process waits, and then finds it here."""
        self._locks.mkdir(parents=True, exist_ok=True)
        with (self._locks / f"{file.blob}.intaglio.lock").open("wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # the system releases it when the process ends, however it ends
            yield

    def put(self, file: RemoteFile, commit: str) -> None:
        """Link a complete blob into the folder of the commit."""
        place = self.snapshot(commit) / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = place.with_name(f".{secrets.token_hex(8)}.link")
        aside.symlink_to(os.path.relpath(self.blob(file), place.parent))
        aside.replace(place)
        sync_folder(place.parent)
