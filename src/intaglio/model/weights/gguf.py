"""Read a GGUF file: its metadata and the position of each tensor. Nothing is decoded here.

The file is untrusted. Every count and length is compared with the bytes that are left before it is used, so that no
header can cause a long loop or an allocation larger than the file.

    magic "GGUF", version            u32
    number of tensors, of keys       u64, u64
    per key      name, value type    string, u32, then the value
    per tensor   name, dimensions    string, u32, u64 each (fastest first), type u32, offset u64
    padding to `general.alignment`, then the tensor data; offsets count from here

A string is a u64 length and UTF-8 bytes. All little-endian. Source: the GGUF specification in ggml's
`docs/gguf.md`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError
from intaglio.files.lfs_pointer import LFS_ADVICE, NUM_BYTES, is_lfs_pointer
from intaglio.model.weights.formats import (
    MAX_DIMENSIONS,
    TYPE_BY_GGML_ID,
    UNREAD_TYPES,
    RawTensor,
    StorageType,
    stored_bytes,
)
from intaglio.model.weights.mapped_file import errors_prefixed_with, map_file

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)  # 1 had 32-bit lengths; 3 differs from 2 only in allowing big-endian files
_DEFAULT_ALIGNMENT = 32

# Far above any real model (the largest Gemma 3 has 808 tensors and 262,144 tokens, and the default model's
# header takes 6.5 MB), and low enough that a header at the limit is read in a second or two.
_MAX_HEADER_BYTES = 64 << 20
_MAX_TENSORS = 1 << 16
_MAX_KEYS = 1 << 16
_MAX_ARRAY_LENGTH = 1 << 22
_MAX_NAME_BYTES = 1 << 16
_MAX_ALIGNMENT = 1 << 20

_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBER_FORMATS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A parsed GGUF file.

    metadata  by key: numbers, booleans, strings and lists of numbers; arrays of strings as StringArray
    tensors   by the file's own names, in the file's order; views of the mapped file
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, RawTensor]


class StringArray(Sequence[str]):
    """An array of strings that is decoded at the first access.

    A Gemma file has 262,144 token strings, and a reader that only needs the weights should not decode them.
    """

    __slots__ = ("_encoded", "_key", "_length", "_strings")

    def __init__(self, key: str, encoded: bytes, length: int) -> None:
        """encoded: the array's bytes in the file: for each string, its u64 length and its bytes."""
        self._key = key
        self._encoded = encoded
        self._length = length
        self._strings: list[str] | None = None

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._decoded()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def _decoded(self) -> list[str]:
        if self._strings is None:
            unpack, encoded, position = struct.Struct("<Q").unpack_from, self._encoded, 0
            strings = []
            try:
                for _ in range(self._length):
                    start = position + 8
                    position = start + unpack(encoded, position)[0]
                    strings.append(encoded[start:position].decode())
            except UnicodeDecodeError as error:
                raise ModelFormatError(f"GGUF key {self._key!r}: entry {len(strings)} is not UTF-8") from error
            self._strings = strings
        return self._strings


def read_gguf(path: Path) -> GgufFile:
    """Parse the header of a GGUF file and map its tensors.

    Raises ModelFormatError naming the file and what in it is wrong.
    """
    data = map_file(path)
    with errors_prefixed_with(path):
        return GgufFile(path, *_parse(data))


def read_gguf_metadata_bytes(content: bytes, label: str) -> dict[str, Any]:
    """The metadata of a GGUF file in memory. label names it in messages. Raises ModelFormatError."""
    with errors_prefixed_with(Path(label)):
        return _parse(np.frombuffer(content, np.uint8))[0]


def metadata_only(path: Path) -> bytes:
    """A GGUF file with the metadata of `path`, byte for byte, and without tensors. Raises ModelFormatError."""
    data = map_file(path)
    with errors_prefixed_with(path):
        _parse(data)
        cursor = _Cursor(data[:_MAX_HEADER_BYTES])
        start = cursor.take(8)  # magic and version
        cursor.take(8)
        num_keys = cursor.take(8)
        first = cursor.position
        _read_metadata(cursor, int.from_bytes(num_keys, "little"))
    return start + bytes(8) + num_keys + data[first : cursor.position].tobytes()


def _parse(data: NDArray[np.uint8]) -> tuple[dict[str, Any], dict[str, RawTensor]]:
    cursor = _Cursor(data[:_MAX_HEADER_BYTES])
    if cursor.take(4) != _MAGIC:
        if is_lfs_pointer(data[:NUM_BYTES].tobytes()):
            raise ModelFormatError(LFS_ADVICE)
        raise ModelFormatError(f"not a GGUF file: it begins with {data[:4].tobytes()!r}")
    version = cursor.number("<I")
    if version not in _VERSIONS:
        raise ModelFormatError(f"GGUF version {version}; versions 2 and 3 (little-endian) are read")
    num_tensors = cursor.count("tensors", _MAX_TENSORS)
    num_keys = cursor.count("keys", _MAX_KEYS)
    metadata = _read_metadata(cursor, num_keys)
    layouts = [_read_layout(cursor) for _ in range(num_tensors)]
    alignment = _alignment(metadata)
    data_start = -(-cursor.position // alignment) * alignment
    _check_placement(layouts, data_start, alignment, len(data))
    tensors: dict[str, RawTensor] = {}
    for layout in layouts:
        if layout.name in tensors:
            raise ModelFormatError(f"tensor {layout.name!r} appears twice")
        start = data_start + layout.offset
        tensors[layout.name] = RawTensor(
            layout.name, layout.kind.name, layout.shape, data[start : start + layout.num_bytes]
        )
    return metadata, tensors


class _Cursor:
    """Reads little-endian fields one after the other, never past the end of the data."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._view = data.data
        self.position = 0

    @property
    def remaining(self) -> int:
        return len(self._view) - self.position

    def take(self, num_bytes: int) -> bytes:
        if num_bytes > self.remaining:
            raise ModelFormatError(
                f"the header is cut off: {num_bytes} bytes are needed at byte {self.position}, "
                f"{self.remaining} are left"
            )
        start = self.position
        self.position += num_bytes
        return bytes(self._view[start : self.position])

    def number(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def count(self, what: str, limit: int) -> int:
        value: int = self.number("<Q")
        if value > min(limit, self.remaining):
            raise ModelFormatError(
                f"the header announces {value} {what}; the limit is {limit}, and it has {self.remaining} bytes left"
            )
        return value

    def string(self, what: str, limit: int) -> str:
        encoded = self.take(self.count(f"bytes of {what}", limit))
        try:
            return encoded.decode()
        except UnicodeDecodeError as error:
            raise ModelFormatError(f"{what} is not UTF-8: {encoded[:64]!r}") from error

    def skip_strings(self, key: str, length: int) -> bytes:
        """Skip `length` strings and return their bytes undecoded.

        The tightest loop of the reader: it runs 262,144 times for a Gemma 3.
        """
        unpack, view, end = struct.Struct("<Q").unpack_from, self._view, len(self._view)
        start = position = self.position
        for index in range(length):
            if position > end - 8:
                raise ModelFormatError(f"key {key!r}: the header ends within string {index} of {length}")
            position += 8 + unpack(view, position)[0]
        if position > end:
            raise ModelFormatError(f"key {key!r}: the header ends within string {length - 1} of {length}")
        self.position = position
        return bytes(view[start:position])


def _read_metadata(cursor: _Cursor, num_keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.string("a key", _MAX_NAME_BYTES)
        if not key or key in metadata:
            raise ModelFormatError(f"key {key!r} {'appears twice' if key else 'is empty'}")
        metadata[key] = _read_value(cursor, key, cursor.number("<I"))
    return metadata


def _read_value(cursor: _Cursor, key: str, value_type: int) -> Any:
    if value_type == _STRING:
        return cursor.string(f"the value of key {key!r}", cursor.remaining)
    if value_type == _ARRAY:
        return _read_array(cursor, key)
    if value_type == _BOOL:
        value = cursor.number("<B")
        if value > 1:
            raise ModelFormatError(f"key {key!r}: a boolean of {value}")
        return bool(value)
    return _read_numbers(cursor, key, value_type, 1)[0]


def _read_array(cursor: _Cursor, key: str) -> StringArray | list[Any]:
    item_type = cursor.number("<I")
    length = cursor.count(f"entries in key {key!r}", _MAX_ARRAY_LENGTH)
    if item_type == _STRING:
        return StringArray(key, cursor.skip_strings(key, length), length)
    if item_type == _BOOL:
        return [value != 0 for value in cursor.take(length)]
    return _read_numbers(cursor, key, item_type, length)


def _read_numbers(cursor: _Cursor, key: str, value_type: int, length: int) -> list[Any]:
    if value_type not in _NUMBER_FORMATS:
        raise ModelFormatError(f"key {key!r} has the value type {value_type}, which is not supported")
    dtype = np.dtype(_NUMBER_FORMATS[value_type])
    values: list[Any] = np.frombuffer(cursor.take(length * dtype.itemsize), dtype=dtype).tolist()
    return values


@dataclass(frozen=True, slots=True)
class _Layout:
    """A tensor's header entry; `offset` counts from the start of the tensor data."""

    name: str
    kind: StorageType
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


def _read_layout(cursor: _Cursor) -> _Layout:
    name = cursor.string("a tensor name", _MAX_NAME_BYTES)
    num_dimensions = cursor.number("<I")
    if not 1 <= num_dimensions <= MAX_DIMENSIONS:
        raise ModelFormatError(f"tensor {name!r} has {num_dimensions} dimensions; 1 to {MAX_DIMENSIONS} are allowed")
    fastest_first = [cursor.number("<Q") for _ in range(num_dimensions)]
    type_id = cursor.number("<I")
    if type_id not in TYPE_BY_GGML_ID:
        known = ", ".join(kind.name for kind in TYPE_BY_GGML_ID.values())
        named = f"{UNREAD_TYPES[type_id]} ({type_id})" if type_id in UNREAD_TYPES else str(type_id)
        raise ModelFormatError(
            f"tensor {name!r} has the ggml type {named}; supported types are {known}. Take another file of the model, "
            "such as its Q4_K_M or Q8_0"
        )
    kind, shape = TYPE_BY_GGML_ID[type_id], tuple(reversed(fastest_first))
    return _Layout(name, kind, shape, cursor.number("<Q"), stored_bytes(name, kind, shape))


def _alignment(metadata: dict[str, Any]) -> int:
    value = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or not 1 <= value <= _MAX_ALIGNMENT or value & (value - 1):
        raise ModelFormatError(f"general.alignment is {value!r}, not a power of two up to {_MAX_ALIGNMENT}")
    return value


def _check_placement(layouts: list[_Layout], data_start: int, alignment: int, file_bytes: int) -> None:
    """Refuse tensors that are misaligned, reach past the end of the file or share bytes."""
    occupied_to, previous = 0, ""
    for layout in sorted(layouts, key=lambda layout: layout.offset):
        if layout.offset % alignment:
            raise ModelFormatError(
                f"tensor {layout.name!r} starts at offset {layout.offset}, not a multiple of {alignment}"
            )
        if layout.offset < occupied_to:
            raise ModelFormatError(f"tensors {previous!r} and {layout.name!r} overlap in the file")
        occupied_to, previous = layout.offset + layout.num_bytes, layout.name
        if data_start + occupied_to > file_bytes:
            raise ModelFormatError(
                f"tensor {layout.name!r} ends at byte {data_start + occupied_to}, the file at {file_bytes}"
            )
