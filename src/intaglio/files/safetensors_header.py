"""Finds the tensors of a safetensors file. Reads no values.

    8 bytes     length of the header, little endian
    header      JSON: {"name": {"dtype": "F32", "shape": [8, 640], "data_offsets": [0, 20480]}, "__metadata__": {...}}
    the rest    the tensors, at those offsets counted from the end of the header, without gap or overlap

Sizes in the file are checked before memory is allocated: the header's length against the file's size and a limit, each
shape against its offsets. The official reader is not used because it maps the file (a mapped file that shrinks kills
the process), copies each tensor, and does not name the tensor that is wrong.
Source: github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import math
import os
import reprlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from intaglio.errors import IntaglioError
from intaglio.files.json_object import parse_json_object
from intaglio.files.lfs_pointer import LFS_ADVICE, NUM_BYTES, is_lfs_pointer

MAX_NAME_CHARS = 512
# How values of the accepted types are stored. NumPy has no bfloat16, the upper half of a float32.
STORED_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


@dataclass(frozen=True, slots=True)
class Header:
    """entries: the tensors by name, in the order in which they lie in the file."""

    entries: dict[str, TensorEntry]
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies: start and stop are byte offsets from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class HeaderReader:
    """Reads the header of one kind of safetensors files.

    label  names the file in messages
    error  raised when the file is not exactly what its header says; the message names the tensor
    dtypes how values of the accepted types are stored
    """

    label: str
    error: type[IntaglioError]
    max_header_bytes: int
    max_dimensions: int
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=lambda: STORED_DTYPES)

    def read(self, file: BinaryIO) -> dict[str, TensorEntry]:
        """The tensors by name, in the order in which they lie in the file, which must be open at its beginning."""
        return self.read_header(file).entries

    def read_header(self, file: BinaryIO) -> Header:
        """The same with the header's `__metadata__`."""
        size = os.fstat(file.fileno()).st_size
        header, data_start = self._read_header(file, size)
        metadata = header.pop("__metadata__", None)
        metadata = {} if metadata is None else metadata  # MLX writes null
        self._check_metadata(metadata)
        entries = sorted(
            (self._read_entry(name, entry, data_start) for name, entry in header.items()),
            key=lambda entry: (entry.start, entry.stop),
        )
        self._check_cover(entries, data_start, size)
        return Header({entry.name: entry for entry in entries}, metadata)

    def _read_header(self, file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
        """(the JSON object, byte offset of the first tensor)."""
        start = file.read(8)
        if len(start) < 8:
            raise self._fault(f"{len(start)} bytes are too few; a safetensors file begins with an 8-byte header length")
        (length,) = struct.unpack("<Q", start)
        if length > size - 8 and is_lfs_pointer(start + file.read(NUM_BYTES)):
            raise self._fault(LFS_ADVICE)
        if length > size - 8:
            raise self._fault(
                f"the header says it has {length} bytes, but only {size - 8} follow; "
                "the file is cut short or is not a safetensors file"
            )
        if length > self.max_header_bytes:
            raise self._fault(f"the header has {length} bytes; the limit is {self.max_header_bytes}")
        return parse_json_object(file.read(length), f"{self.label}: the header", self.error), 8 + length

    def _check_metadata(self, metadata: Any) -> None:
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise self._fault(f"__metadata__ is {reprlib.repr(metadata)}; a JSON object of strings is needed")

    def _read_entry(self, name: str, entry: Any, data_start: int) -> TensorEntry:
        if len(name) > MAX_NAME_CHARS:
            raise self._fault(f"a tensor name has {len(name)} characters; the limit is {MAX_NAME_CHARS}")
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise self._fault(f"tensor {name!r} is {reprlib.repr(entry)}; dtype, shape and data_offsets are needed")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in self.dtypes:
            raise self._fault(
                f"tensor {name!r} has dtype {reprlib.repr(dtype)}; save it as one of {', '.join(self.dtypes)}"
            )
        if not _is_size_list(shape) or len(shape) > self.max_dimensions:
            raise self._fault(
                f"tensor {name!r} has shape {reprlib.repr(shape)}; at most {self.max_dimensions} sizes are needed"
            )
        if not _is_size_list(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self._fault(f"tensor {name!r} has data_offsets {reprlib.repr(offsets)}; [begin, end] is needed")
        needed, given = math.prod(shape) * self.dtypes[dtype].itemsize, offsets[1] - offsets[0]
        if needed != given:
            raise self._fault(
                f"tensor {name!r}, {dtype} of shape {shape}, needs {needed} bytes; its offsets span {given}"
            )
        return TensorEntry(name, dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])

    def _check_cover(self, entries: list[TensorEntry], data_start: int, size: int) -> None:
        """Check that each byte from the header to the end of the file belongs to one tensor."""
        expected, before = data_start, "the header"
        for entry in entries:
            if entry.stop > size:
                raise self._fault(
                    f"tensor {entry.name!r} ends at byte {entry.stop}, the file at {size}; "
                    "the file is cut short or its offsets are wrong"
                )
            if entry.start != expected:
                fault = "overlaps" if entry.start < expected else "leaves a gap after"
                raise self._fault(
                    f"tensor {entry.name!r} at byte {entry.start} {fault} {before}, which ends at {expected}"
                )
            expected, before = entry.stop, f"tensor {entry.name!r}"
        if expected != size:
            raise self._fault(f"{size - expected} bytes follow {before} and belong to no tensor")

    def _fault(self, message: str) -> IntaglioError:
        return self.error(f"{self.label}: {message}")


def _is_size_list(value: Any) -> bool:
    """Whether the value is a list of integers below 2^40, so that products and differences stay small."""
    return isinstance(value, list) and all(
        type(size) is int and 0 <= size < 1 << 40  # `isinstance` would accept True
        for size in value
    )
