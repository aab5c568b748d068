"""Packed adapters on disk: each file has an adapter in the layout of the kernels, and the result of its verification.

Loading an adapter from its own files means parsing, checking, converting and hashing some hundred tensors, and then
verifying it. This is done once; later loads read one packed file. Its name has the digest, the type and a hash of base,
kernels and version, so no file is ever out of date: a change of any of these leads to another file. An adapter that was
not verified has no file.

Every file can be made again from the adapter's own files. A file that was not read for a month is removed, so a deleted
adapter leaves nothing behind; and all files together use at most half of the disk space that is free without them, so
repeated uploads and deletions do not fill the disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from intaglio.lora.packing import AdapterDtype
from intaglio.model.array_file import ASIDE_PREFIX, read_arrays, write_arrays
from intaglio.request import Verification

logger = logging.getLogger(__name__)

VERSION = 5  # raise it whenever `pack_tensors`, the arrays of a file or the conditions of a verification change

_SUFFIX = ".adapter"
_VERIFICATION = "verification"
_DAY_S = 24 * 3600.0
_MAX_UNREAD_S = 30 * _DAY_S

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class PackedAdapter:
    """A verified adapter. arrays: as `Ops.lora_arrays` gave them."""

    verification: Verification
    arrays: Arrays

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(array.nbytes for array in self.arrays.values())


class PackedAdapters:
    """The packed adapters of one folder, in one type. Threads and processes may share the folder.

    A file is memory-mapped, so its pages are shared by all processes that serve the adapter. Its hash is checked when
    the file is read for the first time.

    served_by  names everything else that a file depends on: base, kernels, version
    """

    def __init__(self, folder: Path, dtype: AdapterDtype, served_by: str) -> None:
        self._folder = folder
        self._served_by = served_by
        self._checked: dict[str, tuple[int, int, int]] = {}  # digest -> identity of the file whose hash was checked
        self.dtype: AdapterDtype = dtype

    def read(self, digest: str) -> PackedAdapter | None:
        """The packed adapter; None if its file is missing or differs from what was written."""
        path = self._path(digest)
        file = _identity(path)
        is_checked = file is not None and self._checked.get(digest) == file
        arrays = read_arrays(path, VERSION, self._key(digest), mapped=True, verified=is_checked)
        if file is None or arrays is None or _VERIFICATION not in arrays:
            return None
        self._checked[digest] = file
        verification = msgspec.json.decode(arrays.pop(_VERIFICATION).tobytes(), type=Verification)
        _record_use(path)
        return PackedAdapter(verification, arrays)

    def write(self, digest: str, packed: PackedAdapter) -> None:
        """Write the file. If that fails, a warning is logged, and loading stays slow."""
        path = self._path(digest)
        verification = np.frombuffer(msgspec.json.encode(packed.verification), np.uint8)
        try:
            write_arrays(path, VERSION, self._key(digest), {**packed.arrays, _VERIFICATION: verification})
        except OSError as error:
            logger.warning(
                "packed adapter could not be written to %s (%s); it will be read from its own files", path, error
            )
            return
        written = _identity(path)
        if written is not None:
            self._checked[digest] = written
        self.sweep()

    def sweep(self) -> int:
        """Remove files that were not read for a month and unfinished files; then the least recently read ones, until
        the rest is at most half of its size plus the free disk space. Returns the number of removed files.
        """
        found = [*self._folder.glob(f"*{_SUFFIX}"), *self._folder.glob(f"{ASIDE_PREFIX}*")]
        stats = {path: stat for path in found if (stat := _stat(path)) is not None}
        used = sum(stat.st_size for stat in stats.values())
        max_used = (used + shutil.disk_usage(self._folder).free) // 2 if stats else 0
        removed = 0
        for path, stat in sorted(stats.items(), key=lambda item: item[1].st_mtime):
            is_aside = path.name.startswith(ASIDE_PREFIX)  # a process may be writing it
            is_old = time.time() - stat.st_mtime > (_DAY_S if is_aside else _MAX_UNREAD_S)
            if is_old or (used > max_used and not is_aside):
                used -= stat.st_size
                removed += _remove(path)
        return removed

    def _path(self, digest: str) -> Path:
        served_by = hashlib.sha256(self._served_by.encode()).hexdigest()[:12]
        return self._folder / f"{digest[:32]}.{self.dtype}.{served_by}{_SUFFIX}"

    def _key(self, digest: str) -> str:
        return f"{digest} {self.dtype} {self._served_by}"


def _stat(path: Path) -> os.stat_result | None:
    """None if the file does not exist."""
    try:
        return path.stat()
    except OSError:
        return None


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file is replaced or written to; None if it does not exist."""
    found = _stat(path)
    return None if found is None else (found.st_ino, found.st_size, found.st_ctime_ns)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError as error:  # another process removed it, or the folder is read-only
        logger.info("unused packed adapter %s stays: %s", path, error)
        return False
    return True


def _record_use(path: Path) -> None:
    """Update the file's access time, which `sweep` reads, at most once a day."""
    try:
        if time.time() - path.stat().st_mtime > _DAY_S:
            os.utime(path)
    except OSError as error:
        logger.debug("%s: time of use not recorded: %s", path, error)
