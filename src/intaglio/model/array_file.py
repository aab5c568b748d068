"""Arrays in one file, used without conversion: the file format of packed weights and packed adapters.

    data    the arrays, each at a multiple of 64 bytes
    header  JSON: version, key, types, shapes and offsets of the arrays, SHA-256 of the data
    tail    SHA-256 of the header, its length, a magic word

A file is written atomically, and used only if its hashes agree and version and key are the expected ones. Its content
can always be made again, so any other file is treated as missing.

The weights of a base are read into memory with pages of 2 MiB: every step streams through all weights, and with pages
of 4 KiB, which a memory map has, address translation is slow. Adapters are mapped: they are loaded and evicted often, a
step reads a few of them, and mapping a file from the page cache takes a tenth of a millisecond. Before Python 3.13 a
map needs a file descriptor; when only RESERVED_DESCRIPTORS are free, a file is read instead of mapped.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import mmap
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from intaglio.files.atomic_write import PRIVATE, atomic_write

logger = logging.getLogger(__name__)

_MAGIC = b"INTAGLIO"
_TAIL_BYTES = 32 + 8 + len(_MAGIC)
_ALIGNMENT = 64
_LARGE_BYTES = 32 << 20  # larger memory gets pages of 2 MiB
_MAX_HEADER_BYTES = 16 << 20
RESERVED_DESCRIPTORS = 64  # kept free for files that are opened and closed again, and for sockets

Arrays = Mapping[str, NDArray[Any]]

ASIDE_PREFIX = ".packing-"  # of unfinished files; a killed process leaves its file behind


class _Array(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    offset: int  # from the start of the file


class _Header(msgspec.Struct, frozen=True):
    version: int
    key: str
    data_bytes: int
    sha256: str
    arrays: dict[str, _Array]


def write_arrays(path: Path, version: int, key: str, arrays: Arrays) -> None:
    """Write the file, durably and atomically; its folder is made if missing. Raises OSError.

    version, key  identify how the arrays were made and from what; `read_arrays` must pass the same
    """
    described: dict[str, _Array] = {}
    offset = 0
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, mode=PRIVATE, aside_prefix=ASIDE_PREFIX) as file:
        for name, array in arrays.items():
            described[name] = _Array(array.dtype.str, array.shape, offset)
            for content in (_bytes_of(array), bytes(-array.nbytes % _ALIGNMENT)):
                file.write(content)
                digest.update(content)
                offset += len(content)
        header = msgspec.json.encode(_Header(version, key, offset, digest.hexdigest(), described))
        # The header is at the end, with its length behind it: the hash of the data is known only then.
        file.write(header + hashlib.sha256(header).digest() + len(header).to_bytes(8, "little") + _MAGIC)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """The array in C order; copied only if it is not C-contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def read_arrays(
    path: Path, version: int, key: str, *, mapped: bool = False, verified: bool = False
) -> dict[str, NDArray[Any]] | None:
    """The arrays, read-only; None if the file is missing or not exactly what was written.

    mapped    map the file instead of reading it
    verified  the hash of the data was checked before: do not compute it again
    """
    try:
        with path.open("rb", buffering=0) as file:
            content = _map_file(file) if mapped else _read_file(file)
    except (OSError, ValueError):  # missing, unreadable or empty
        return None
    header = _parse_header(content)
    if header is None or header.version != version or header.key != key or header.data_bytes > len(content):
        logger.warning("%s is not a packed file of this version; it is made again", path)
        return None
    if not verified and hashlib.sha256(content[: header.data_bytes]).hexdigest() != header.sha256:
        logger.warning("%s is damaged; it is made again", path)
        return None
    return {
        name: np.ndarray(array.shape, np.dtype(array.dtype), content, array.offset)
        for name, array in header.arrays.items()
    }


def _map_file(file: io.FileIO) -> memoryview:
    """Map the file and read all its pages now, in the loading thread, not in the step that first uses them."""
    flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
    try:
        if sys.version_info >= (3, 13):
            return memoryview(mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ, trackfd=False))
        if _few_descriptors_are_left(file):
            return _read_file(file)
        return memoryview(mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ))
    except OSError:  # the limit of maps is reached
        return _read_file(file)


def _few_descriptors_are_left(file: io.FileIO) -> bool:
    """The system assigns the lowest free number, so the number of a new descriptor tells how many are in use."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        number = os.dup(file.fileno())
    except OSError:
        return True
    os.close(number)
    return limit != resource.RLIM_INFINITY and number >= limit - RESERVED_DESCRIPTORS


def _read_file(file: io.FileIO) -> memoryview:
    size = os.fstat(file.fileno()).st_size
    content = _large_page_memory(size) if size >= _LARGE_BYTES else _aligned_memory(size)
    filled = 0
    while count := file.readinto(content[filled : filled + _LARGE_BYTES]):
        filled += count
    return content[:filled].toreadonly()


def _large_page_memory(size: int) -> memoryview:
    """Memory outside the allocator, returned to the system as soon as the arrays are freed."""
    content = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without large pages
            content.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(content)


def _aligned_memory(size: int) -> memoryview:
    """Memory from the allocator, which may reuse pages: new pages cost more than reading the file into them."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].data


def _parse_header(content: memoryview) -> _Header | None:
    if len(content) < _TAIL_BYTES:
        return None
    tail = bytes(content[-_TAIL_BYTES:])
    digest, length, magic = tail[:32], int.from_bytes(tail[32:40], "little"), tail[40:]
    if magic != _MAGIC or length > min(_MAX_HEADER_BYTES, len(content) - _TAIL_BYTES):
        return None
    header = bytes(content[-_TAIL_BYTES - length : -_TAIL_BYTES])
    if hashlib.sha256(header).digest() != digest:
        return None
    try:
        return msgspec.json.decode(header, type=_Header)
    except msgspec.DecodeError:  # undamaged, but written by a version with another header
        return None
