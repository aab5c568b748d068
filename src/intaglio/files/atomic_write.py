"""Write a file aside, sync it, rename it, sync the folder.

Even after a power cut or `kill -9` the path has the old content or the new one. When the call returns, it has the new
one for good.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PRIVATE = 0o600  # readable by its owner only


@contextmanager
def atomic_write(
    path: Path, *, mode: int = 0o666, aside_prefix: str = ".writing-", aside: Path | None = None
) -> Iterator[BinaryIO]:
    """A file to write to, in the folder of `path`, that becomes `path` when the block ends.

    If the block raises, the file aside is removed and `path` stays as it was. Raises OSError.

    mode          permissions of the file, less the umask of the process
    aside_prefix  beginning of the name of the file aside, which a killed process leaves behind
    aside         a fixed path for the file aside, if a lock excludes other writers: one left behind is overwritten
    """
    exclusive = os.O_EXCL if aside is None else os.O_TRUNC
    aside = aside or path.with_name(f"{aside_prefix}{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | exclusive, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def move_into_place(aside: Path, path: Path) -> None:
    """Sync a file that a library wrote, and rename it to `path` on the same disk. Raises OSError."""
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames within the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
