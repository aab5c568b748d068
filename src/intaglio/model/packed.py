"""Packed weights on disk: what the first start worked out, memory-mapped by every later one.

One file per (checkpoint, format, kind of kernels):

    body    the arrays, each at a multiple of 64 bytes
    header  JSON: version, key, types, shapes and offsets of the arrays, SHA-256 of the body
    tail    SHA-256 of the header, its length, a magic word

It is written aside, synced and renamed, and taken only if its hashes agree and its version is ours; anything else is
made again, never trusted. Mapped pages are shared between processes that serve the same model; reading the file into
memory with large pages instead was no faster (docs/experiments.md).
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

VERSION = 1  # raise it whenever a layout in csrc/kernels.h or a rounding in quantize.py changes
_MAGIC = b"INTAGLIO"
_TAIL_BYTES = 32 + 8 + len(_MAGIC)
_ALIGNMENT = 64
_MAX_HEADER_BYTES = 16 << 20

Arrays = Mapping[str, NDArray[Any]]


class _Array(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    offset: int  # from the start of the body


class _Header(msgspec.Struct, frozen=True):
    version: int
    key: str
    body_bytes: int
    sha256: str
    arrays: dict[str, _Array]


def packed_key(path: Path, fmt: str, kernels: str) -> str:
    """Changes with the checkpoint's files (by name, size and time), the format and the kernels' layout."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.sha256(repr((VERSION, fmt, kernels, facts)).encode()).hexdigest()


class PackedFile:
    """The packed arrays of one model: read from `folder` if there, else collected and then written.

    `is_complete` tells which. A folder that cannot be written to costs a slower next start, and a line in the log.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / f"{key[:32]}.packed"
        self._key = key
        self._arrays: dict[str, NDArray[Any]] = dict(_read(self._path, key) or {})
        self.is_complete = bool(self._arrays)

    def get(self, name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays of one matrix; None if they must be made."""
        prefix = f"{name}/"
        return {key.removeprefix(prefix): self._arrays[key] for key in self._arrays if key.startswith(prefix)} or None

    def put(self, name: str, arrays: Arrays) -> None:
        for key, array in arrays.items():
            self._arrays[f"{name}/{key}"] = array

    def save(self) -> None:
        """Write what was put, unless it came from the file."""
        if self.is_complete or not self._arrays:
            return
        try:
            _write(self._path, self._key, self._arrays)
        except OSError as error:
            logger.warning("packed weights could not be kept in %s (%s); the next start packs again", self._path, error)


def _write(path: Path, key: str, arrays: Arrays) -> None:
    described: dict[str, _Array] = {}
    offset = 0
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".packing-", delete=False) as body:
        try:
            for name, array in arrays.items():
                described[name] = _Array(array.dtype.str, list(array.shape), offset)
                for data in (array.tobytes(), bytes(-array.nbytes % _ALIGNMENT)):
                    body.write(data)
                    digest.update(data)
                    offset += len(data)
            body.flush()
            header = msgspec.json.encode(_Header(VERSION, key, offset, digest.hexdigest(), described))
            # The header goes to the end of the file with its length behind it: the body's hash is known only then.
            body.write(header + hashlib.sha256(header).digest() + len(header).to_bytes(8, "little") + _MAGIC)
            body.flush()
            os.fsync(body.fileno())
            Path(body.name).replace(path)
        except BaseException:
            Path(body.name).unlink(missing_ok=True)
            raise


def _read(path: Path, key: str) -> dict[str, NDArray[Any]] | None:
    """The arrays, memory-mapped; None if there is no such file or it is not exactly what was written."""
    try:
        content = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError):  # not there, not to be read, or empty: it is made again
        return None
    header = _header(content)
    if header is None or header.version != VERSION or header.key != key or header.body_bytes > content.size:
        logger.warning("%s is not a packed file of this version; packing again", path)
        return None
    body = content[: header.body_bytes]
    digest = hashlib.sha256(memoryview(body)).hexdigest()  # type: ignore[arg-type]  # an array is a buffer
    if digest != header.sha256:
        logger.warning("%s is damaged; packing again", path)
        return None
    return {name: _view(body, array) for name, array in header.arrays.items()}


def _header(content: NDArray[np.uint8]) -> _Header | None:
    if content.size < _TAIL_BYTES:
        return None
    tail = content[-_TAIL_BYTES:].tobytes()
    digest, length, magic = tail[:32], int.from_bytes(tail[32:40], "little"), tail[40:]
    if magic != _MAGIC or length > min(_MAX_HEADER_BYTES, content.size - _TAIL_BYTES):
        return None
    header = content[-_TAIL_BYTES - length : -_TAIL_BYTES].tobytes()
    if hashlib.sha256(header).digest() != digest:
        return None
    return msgspec.json.decode(header, type=_Header)


def _view(body: NDArray[np.uint8], array: _Array) -> NDArray[Any]:
    dtype = np.dtype(array.dtype)
    size = int(np.prod(array.shape)) * dtype.itemsize
    return body[array.offset : array.offset + size].view(dtype).reshape(array.shape)
