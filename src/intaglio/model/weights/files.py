"""Files as arrays of bytes that the operating system pages in when read, and errors that say which file."""

from __future__ import annotations

import mmap
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError


def map_file(path: Path) -> NDArray[np.uint8]:
    """Map a regular file read-only: [size in bytes] uint8. The mapping ends with the last view of the array.

    Raises ModelFormatError when there is no such file, it is empty, or it is not a regular file (opening a
    pipe would wait for ever).
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelFormatError(f"{path} is not a regular file")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise ModelFormatError(f"{path} is empty")
            return np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), dtype=np.uint8)
    except OSError as error:
        raise ModelFormatError(f"cannot read {path}: {error.strerror}") from error


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Put `path` in front of the message of every ModelFormatError that leaves the block."""
    try:
        yield
    except ModelFormatError as error:
        raise ModelFormatError(f"{path}: {error}") from error
