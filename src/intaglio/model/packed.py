"""Packed weights on disk: computed at the first start, read at every later one.

One file per (checkpoint, format, kernel layout), in the format of `array_file`; a damaged file is made again. It is
read into memory, not mapped: reading weights is faster with pages of 2 MiB (docs/experiments.md).
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from intaglio.model.array_file import Arrays, read_arrays, write_arrays
from intaglio.model.weights import part_paths

logger = logging.getLogger(__name__)

# Raise it whenever a layout in csrc/kernels/kernels.h, a rounding in quantize.py or what `format_of` chooses changes.
VERSION = 3


def packed_key(path: Path, fmt: str, kernels: str) -> str:
    """Changes with the checkpoint's files (by name, size and time), the format and the kernels' layout."""
    files = sorted(path.iterdir()) if path.is_dir() else part_paths(path)
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.sha256(repr((VERSION, fmt, kernels, facts)).encode()).hexdigest()


def packed_path(folder: Path, key: str) -> Path:
    """The file for the packed weights of a key."""
    return folder / f"{key[:32]}.packed"


class PackedFile:
    """The packed arrays of one model: read from the file if it exists (`is_complete`), else collected and written.

    If the folder cannot be written to, a warning is logged, and the next start is slow.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path = packed_path(folder, key)
        self._key = key
        self._arrays: dict[str, NDArray[Any]] = read_arrays(self._path, VERSION, key) or {}
        self.is_complete = bool(self._arrays)

    def get(self, name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays of one matrix; None if they must be made."""
        prefix = f"{name}/"
        return {key.removeprefix(prefix): self._arrays[key] for key in self._arrays if key.startswith(prefix)} or None

    def put(self, name: str, arrays: Arrays) -> None:
        for key, array in arrays.items():
            self._arrays[f"{name}/{key}"] = array

    def save(self) -> None:
        """Write the collected arrays, unless they came from the file."""
        if self.is_complete or not self._arrays:
            return
        try:
            write_arrays(self._path, VERSION, self._key, self._arrays)
        except OSError as error:
            logger.warning(
                "packed weights could not be written to %s (%s); the next start packs again", self._path, error
            )
