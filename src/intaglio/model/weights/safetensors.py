"""Read one safetensors file: where each tensor lies. Nothing is decoded here.

    u64 length of the header, the header (a JSON object), then the bytes of the tensors
    {"name": {"dtype": "BF16", "shape": [640, 2048], "data_offsets": [start, end]}, "__metadata__": {...}}

Offsets count from the end of the header. The tensors must cover the rest of the file exactly, without holes
or overlaps, as the format demands.

The `safetensors` package would do for tests, but not here: its NumPy door copies each tensor, knows no
bfloat16 without a helper, and cannot hand out the mapped bytes that the packer wants. The format is small
enough to read it with every bound in sight. Source: the format section of the safetensors README.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError
from intaglio.model.weights.files import errors_name, map_file
from intaglio.model.weights.formats import MAX_DIMENSIONS, TYPE_BY_NAME, RawTensor, stored_bytes
from intaglio.model.weights.json_object import parse_json_object

_READ_TYPES = ("F32", "F16", "BF16")

# A large Gemma 3 with its vision part has about 1,300 tensors and 200 KB of header. JSON takes some twenty
# times its size in memory once parsed, so the limit of the format itself (100 MB) would be too generous.
_MAX_HEADER_BYTES = 4 << 20


def read_safetensors(path: Path) -> dict[str, RawTensor]:
    """Parse the header of a safetensors file and map its tensors, in the order of the header.

    Only F32, F16 and BF16 are read. Raises ModelFormatError naming the file and the tensor.
    """
    data = map_file(path)
    with errors_name(path):
        return _parse(data)


def _parse(data: NDArray[np.uint8]) -> dict[str, RawTensor]:
    if len(data) < 8:
        raise ModelFormatError(f"{len(data)} bytes are too few for a safetensors file")
    (header_bytes,) = struct.unpack("<Q", data[:8].tobytes())
    if header_bytes > min(_MAX_HEADER_BYTES, len(data) - 8):
        raise ModelFormatError(
            f"the header claims {header_bytes} bytes; the limit is {_MAX_HEADER_BYTES}, "
            f"and the file has {len(data) - 8} left"
        )
    header = parse_json_object(data[8 : 8 + header_bytes].tobytes(), "the header")
    header.pop("__metadata__", None)
    backend = data[8 + header_bytes :]
    places = {name: _placed(name, entry) for name, entry in header.items()}
    _check_cover(places, len(backend))
    return {
        name: RawTensor(name, header[name]["dtype"], tuple(header[name]["shape"]), backend[start:end])
        for name, (start, end) in places.items()
    }


def _placed(name: str, entry: Any) -> tuple[int, int]:
    """Check one header entry and return its (start, end). Raises ModelFormatError."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelFormatError(f"tensor {name!r}: expected an object with dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _READ_TYPES:
        raise ModelFormatError(f"tensor {name!r} has the type {dtype!r}; {', '.join(_READ_TYPES)} are read")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ModelFormatError(f"tensor {name!r}: shape and data_offsets must be short lists of sizes")
    needed = stored_bytes(name, TYPE_BY_NAME[dtype], tuple(shape))
    start, end = offsets
    if end - start != needed:
        raise ModelFormatError(
            f"tensor {name!r} of {dtype} and shape {shape} needs {needed} bytes; its offsets {offsets} "
            f"give {end - start}"
        )
    return start, end


def _are_sizes(value: Any) -> bool:
    """Whether it is a list of at most 4 sizes below 2**63. (isinstance would take True for an int.)"""
    return (
        isinstance(value, list)
        and len(value) <= MAX_DIMENSIONS
        and all(type(item) is int and 0 <= item < 1 << 63 for item in value)
    )


def _check_cover(places: dict[str, tuple[int, int]], backend_bytes: int) -> None:
    covered_to = 0
    for name, (start, end) in sorted(places.items(), key=lambda place: place[1]):
        if start != covered_to:
            problem = "overlaps the tensor before it" if start < covered_to else "leaves a gap before it"
            raise ModelFormatError(f"tensor {name!r} starts at offset {start} where {covered_to} is due: it {problem}")
        if end > backend_bytes:
            raise ModelFormatError(
                f"tensor {name!r} ends at offset {end}; the file holds {backend_bytes} bytes of data"
            )
        covered_to = end
    if covered_to != backend_bytes:
        raise ModelFormatError(f"{backend_bytes - covered_to} bytes after the last tensor belong to none")
