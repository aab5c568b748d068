"""Read a safetensors file that a stranger wrote.

    8 bytes     length of the header, little endian
    header      JSON: {"name": {"dtype": "F32", "shape": [8, 640], "data_offsets": [0, 20480]}, "__metadata__": {...}}
    the rest    the tensors, at those offsets, without gap or overlap

Nothing is allocated on the word of the file: the length is held against the file's size and a cap before the header is
read, every shape against its offsets before a tensor is. The reader is our own because its messages have to name the
tensor that is wrong, and because the official one maps the file: a map of a file that shrinks kills the process.
Source: github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import math
import os
import reprlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from intaglio.errors import AdapterError
from intaglio.lora.peft.regular_file import open_regular
from intaglio.lora.peft.strict_json import parse_object

# Seven projections of 62 layers, two tensors each, need 0.2 MB; some trainers keep their settings in __metadata__.
MAX_HEADER_BYTES = 2 << 20
MAX_NAME_CHARS = 512
MAX_DIMENSIONS = 8

_CHUNK_ELEMENTS = 1 << 20  # what is held beside the result while a tensor is converted

_STORED: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies: start and stop are byte offsets from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """An open file with a checked header.

    entries  the tensors by name, in the order in which they lie in the file
    Opening raises AdapterError naming what is wrong. Use as a context manager.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._label = path.name
        self._file = open_regular(path)
        try:
            size = os.fstat(self._file.fileno()).st_size
            if size > max_bytes:
                raise AdapterError(
                    f"{path.name} has {size} bytes; at most {max_bytes} are taken (max_adapter_file_bytes). If PEFT "
                    "put tables of the base beside the adapter, save_embedding_layers=False leaves them out"
                )
            header, data_start = _read_header(self._file, size, path.name)
            self.entries = _check_entries(header, data_start, size, path.name)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor as float32, whatever its stored type. Raises AdapterError when a value is not finite."""
        entry = self.entries[name]
        return self._values(entry, entry.start, entry.stop).reshape(entry.shape)

    def read_rows(self, name: str, first: int, last: int) -> npt.NDArray[np.float32]:
        """Rows first ... last - 1 of a matrix, as `read` gives them."""
        entry = self.entries[name]
        row_bytes = entry.shape[1] * _STORED[entry.dtype].itemsize
        start = entry.start + first * row_bytes
        return self._values(entry, start, start + (last - first) * row_bytes).reshape(last - first, entry.shape[1])

    def check_values(self, name: str) -> None:
        """Raise AdapterError when a value of the tensor is not finite. Takes a few MB, however large the tensor."""
        entry = self.entries[name]
        for _ in self._chunks(entry, entry.start, entry.stop):
            pass

    def _values(self, entry: TensorEntry, start: int, stop: int) -> npt.NDArray[np.float32]:
        values = np.empty((stop - start) // _STORED[entry.dtype].itemsize, np.float32)
        filled = 0
        for chunk in self._chunks(entry, start, stop):
            values[filled : filled + chunk.size] = chunk
            filled += chunk.size
        return values

    def _chunks(self, entry: TensorEntry, start: int, stop: int) -> Iterator[npt.NDArray[np.float32]]:
        """The values between two byte offsets of the file."""
        stored = _STORED[entry.dtype]
        self._file.seek(start)
        left = stop - start
        while left:
            raw = self._file.read(min(left, _CHUNK_ELEMENTS * stored.itemsize))
            if not raw or len(raw) % stored.itemsize:
                raise AdapterError(f"{self._label}: the file ends inside tensor {entry.name!r}")
            left -= len(raw)
            chunk = _to_float32(np.frombuffer(raw, stored), entry.dtype)
            if not np.isfinite(chunk).all():
                raise AdapterError(
                    f"{self._label}: tensor {entry.name!r} holds values that are NaN or infinite; "
                    "the training diverged or the file is damaged"
                )
            yield chunk


def _to_float32(stored: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":  # the upper half of a float32
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def _read_header(file: BinaryIO, size: int, label: str) -> tuple[dict[str, Any], int]:
    """(the JSON object, byte offset of the first tensor)."""
    if size < 8:
        raise AdapterError(f"{label} has {size} bytes; a safetensors file begins with an 8-byte header length")
    (length,) = struct.unpack("<Q", file.read(8))
    if length > size - 8:
        raise AdapterError(
            f"{label}: the header says it has {length} bytes, but only {size - 8} follow; "
            "the file is cut short or is not a safetensors file"
        )
    if length > MAX_HEADER_BYTES:
        raise AdapterError(f"{label}: the header has {length} bytes; at most {MAX_HEADER_BYTES} are taken")
    return parse_object(file.read(length), f"{label}: the header"), 8 + length


def _check_entries(header: dict[str, Any], data_start: int, size: int, label: str) -> dict[str, TensorEntry]:
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterError(f"{label}: __metadata__ is {reprlib.repr(metadata)}; a JSON object of texts is needed")
    entries = sorted(
        (_check_entry(name, entry, data_start, label) for name, entry in header.items()),
        key=lambda entry: (entry.start, entry.stop),
    )
    expected, before = data_start, "the header"
    for entry in entries:
        if entry.stop > size:
            raise AdapterError(
                f"{label}: tensor {entry.name!r} ends at byte {entry.stop}, the file at {size}; "
                "the file is cut short or its offsets are wrong"
            )
        if entry.start != expected:
            fault = "overlaps" if entry.start < expected else "leaves a gap after"
            raise AdapterError(
                f"{label}: tensor {entry.name!r} at byte {entry.start} {fault} {before}, which ends at {expected}"
            )
        expected, before = entry.stop, f"tensor {entry.name!r}"
    if expected != size:
        raise AdapterError(f"{label}: {size - expected} bytes follow {before} and belong to no tensor")
    return {entry.name: entry for entry in entries}


def _check_entry(name: str, entry: Any, data_start: int, label: str) -> TensorEntry:
    if len(name) > MAX_NAME_CHARS:
        raise AdapterError(f"{label}: a tensor name has {len(name)} characters; at most {MAX_NAME_CHARS} are taken")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise AdapterError(
            f"{label}: tensor {name!r} is {reprlib.repr(entry)}; dtype, shape and data_offsets are needed"
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _STORED:
        raise AdapterError(
            f"{label}: tensor {name!r} has dtype {reprlib.repr(dtype)}; save it as one of {', '.join(_STORED)}"
        )
    if not _is_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise AdapterError(
            f"{label}: tensor {name!r} has shape {reprlib.repr(shape)}; at most {MAX_DIMENSIONS} sizes are needed"
        )
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise AdapterError(f"{label}: tensor {name!r} has data_offsets {reprlib.repr(offsets)}; [begin, end] is needed")
    needed, given = math.prod(shape) * _STORED[dtype].itemsize, offsets[1] - offsets[0]
    if needed != given:
        raise AdapterError(
            f"{label}: tensor {name!r}, {dtype} of shape {shape}, needs {needed} bytes; its offsets span {given}"
        )
    return TensorEntry(name, dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _is_sizes(value: Any) -> bool:
    """A list of whole numbers that fit a file: so that products and differences stay small."""
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 40 for size in value)
