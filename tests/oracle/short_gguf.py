"""GGUF files without their vocabulary, for a reference that reads a file's metadata slowly, and twice."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import BinaryIO

ALIGNMENT = 32  # where tensor data begins; GGUF's default
STRING, ARRAY, UINT32 = 8, 9, 4
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a number, by its type


def write_without_vocabulary(source: Path, target: Path, architecture: str) -> None:
    """Copy a GGUF file but for its `tokenizer.` keys; the number of tokens becomes `<architecture>.vocab_size`.

    Tensors and all other keys stay byte for byte.
    """
    with source.open("rb") as file, target.open("wb") as out:
        magic, version, num_tensors, num_keys = struct.unpack("<4sIQQ", file.read(24))
        assert (magic, version) == (b"GGUF", 3)
        kept = []
        for _ in range(num_keys):
            start = file.tell()
            key = _string(file)
            assert key != "general.alignment"
            length = _skip_value(file)
            if key == "tokenizer.ggml.tokens":
                name = f"{architecture}.vocab_size".encode()
                kept.append(struct.pack("<Q", len(name)) + name + struct.pack("<II", UINT32, length))
            elif not key.startswith("tokenizer."):
                kept.append(_bytes_from(file, start))
        start = file.tell()
        for _ in range(num_tensors):
            _string(file)
            (num_dimensions,) = struct.unpack("<I", file.read(4))
            file.seek(8 * num_dimensions + 4 + 8, 1)
        layouts = _bytes_from(file, start)
        out.write(struct.pack("<4sIQQ", magic, version, num_tensors, len(kept)) + b"".join(kept) + layouts)
        out.write(bytes(-out.tell() % ALIGNMENT))
        file.seek(-file.tell() % ALIGNMENT, 1)
        shutil.copyfileobj(file, out)


def _bytes_from(file: BinaryIO, start: int) -> bytes:
    """What lies between `start` and the place that was read up to."""
    end = file.tell()
    file.seek(start)
    return file.read(end - start)


def _string(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    return file.read(length).decode()


def _skip_value(file: BinaryIO) -> int:
    """The number of values that were passed over."""
    (kind,) = struct.unpack("<I", file.read(4))
    count = 1
    if kind == ARRAY:
        kind, count = struct.unpack("<IQ", file.read(12))
    if kind == STRING:
        for _ in range(count):
            file.seek(struct.unpack("<Q", file.read(8))[0], 1)
    else:
        file.seek(SIZES[kind] * count, 1)
    return count
