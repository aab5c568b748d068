"""Files as arrays of bytes that the operating system pages in when read, and errors that say which file."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError
from intaglio.files.regular_file import open_regular


def map_file(path: Path) -> NDArray[np.uint8]:
    """Map a regular file read-only: [size in bytes] uint8. The mapping ends with the last view of the array.

    Raises ModelFormatError when there is no such file, it is empty, or it is not a regular file.
    """
    with open_regular(path, str(path), ModelFormatError) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ModelFormatError(f"{path} is empty")
        return map_open_file(file)


def map_open_file(file: BinaryIO) -> NDArray[np.uint8]:
    """Map a file that is open and not empty, as `map_file` does."""
    try:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    except OSError as error:
        raise ModelFormatError(f"{file.name} cannot be mapped: {error.strerror}") from error


def release_pages(data: NDArray[np.uint8]) -> None:
    """Drop the pages of a view of a mapped file from this process's memory; they are read again when used again.

    Without it a process that reads a large file from end to end holds all of it until memory runs short.
    """
    owner: object = data
    while isinstance(owner, np.ndarray):
        owner = owner.base
    mapped = owner.obj if isinstance(owner, memoryview) else owner
    if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = data.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    first = start - start % mmap.PAGESIZE
    mapped.madvise(mmap.MADV_DONTNEED, first, start + data.nbytes - first)


@contextmanager
def errors_prefixed_with(path: Path) -> Iterator[None]:
    """Put `path` in front of the message of every ModelFormatError that leaves the block."""
    try:
        yield
    except ModelFormatError as error:
        raise ModelFormatError(f"{path}: {error}") from error
