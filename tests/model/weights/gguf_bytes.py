"""GGUF files byte by byte, so that a test can write a false value into any field."""

from __future__ import annotations

import struct
from collections.abc import Sequence

U8, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10


def string(text: str | bytes, length: int | None = None) -> bytes:
    """A GGUF string. `length` is written in its header; None: the true length."""
    encoded = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded


def key(name: str, value_type: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", value_type) + value


def string_array(items: Sequence[str | bytes], length: int | None = None) -> bytes:
    count = len(items) if length is None else length
    return struct.pack("<IQ", STRING, count) + b"".join(string(item) for item in items)


def tensor(name: str, dimensions: Sequence[int], type_id: int = 0, offset: int = 0) -> bytes:
    """A tensor's header entry; dimensions fastest first."""
    sizes = b"".join(struct.pack("<Q", size) for size in dimensions)
    return string(name) + struct.pack("<I", len(dimensions)) + sizes + struct.pack("<IQ", type_id, offset)


def gguf_file(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    magic: bytes = b"GGUF",
    version: int = 3,
    num_tensors: int | None = None,
    num_keys: int | None = None,
) -> bytes:
    """A whole file with an alignment of 32. The counts are the true ones unless given."""
    header = magic + struct.pack(
        "<IQQ",
        version,
        len(tensors) if num_tensors is None else num_tensors,
        len(keys) if num_keys is None else num_keys,
    )
    header += b"".join(keys) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + data
