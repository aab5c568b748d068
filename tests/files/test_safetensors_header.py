"""A header is believed only if the file is exactly what it says; the message names what is not."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from intaglio.errors import AdapterError
from intaglio.files.safetensors_header import MAX_NAME_CHARS, HeaderReader, TensorEntry

MAX_HEADER_BYTES = 1 << 20


def read(path: Path) -> dict[str, TensorEntry]:
    with path.open("rb") as file:
        return HeaderReader(path.name, AdapterError, MAX_HEADER_BYTES, 4).read(file)


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """`header` as JSON, or as the bytes that stand for it; `length` is what the file says, the truth if None."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: Any = (2,), start: Any = 0, stop: Any = 8, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.safetensors"


FAULTS: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "0 bytes are too few"),
    "seven bytes": (bytes(7), "7 bytes are too few"),
    "a header length of 2 GB": (safetensors({}, length=2 << 30), "says it has 2147483648 bytes, but only 2 follow"),
    "a header past the end": (safetensors({}, length=3), "says it has 3 bytes, but only 2 follow"),
    "a long header": (safetensors(b" " * (MAX_HEADER_BYTES + 1)), f"the limit is {MAX_HEADER_BYTES}"),
    "not JSON": (safetensors(b"\x80\x02}q"), "the header is not valid JSON"),
    "not UTF-8": (safetensors(b'{"\xff": 1}'), "the header is not valid JSON"),
    "a list": (safetensors([1]), "a JSON object is needed"),
    "deep nesting": (safetensors(b"[" * 500_000), "the header is nested too deeply"),
    "a number of 5,000 digits": (safetensors(b'{"t":' + b"9" * 5000 + b"}"), "the header is not valid JSON"),
    "NaN": (safetensors(b'{"t": NaN}'), "NaN is not a JSON value"),
    "a name twice": (safetensors(b'{"t": {}, "t": {}}'), "key 't' occurs twice"),
    "metadata that is a list": (safetensors({"__metadata__": [1]}), "__metadata__"),
    "metadata with a number": (safetensors({"__metadata__": {"a": 1}}), "__metadata__"),
    "a tensor that is a number": (safetensors({"t": 1}), "tensor 't' is 1"),
    "a tensor without a shape": (safetensors({"t": {"dtype": "F32", "data_offsets": [0, 8]}}), "tensor 't'"),
    "a tensor without offsets": (safetensors({"t": {"dtype": "F32", "shape": [2]}}), "tensor 't'"),
    "a tensor with a fourth key": (safetensors({"t": entry() | {"x": 1}}, bytes(8)), "tensor 't' is "),
    "integers": (
        safetensors({"t": entry(dtype="I64", stop=16)}, bytes(16)),
        "dtype 'I64'; save it as one of F32, F16, BF16",
    ),
    "a type of GGUF": (safetensors({"t": entry([32], stop=34, dtype="Q8_0")}, bytes(34)), "'t' has dtype 'Q8_0'"),
    "a dtype that is a list": (safetensors({"t": entry(dtype=["F32"])}, bytes(8)), "'t' has dtype"),
    "a shape that is a number": (safetensors({"t": entry(2)}, bytes(8)), "'t' has shape 2"),
    "a shape of booleans": (safetensors({"t": entry([True], stop=4)}, bytes(4)), r"'t' has shape \[True\]"),
    "a shape of fractions": (safetensors({"t": entry([2.0])}, bytes(8)), r"'t' has shape \[2.0\]"),
    "a negative size": (safetensors({"t": entry([-1])}, bytes(8)), r"'t' has shape \[-1\]"),
    "two negative sizes": (safetensors({"t": entry([-2, -1])}, bytes(8)), r"'t' has shape \[-2, -1\]"),
    "a size that overflows": (safetensors({"t": entry([2**63, 2**63])}, bytes(8)), "'t' has shape"),
    "a size of 4,000 digits": (safetensors({"t": entry([10**4000])}, bytes(8)), "'t' has shape"),
    "five dimensions": (safetensors({"t": entry([1] * 5, stop=4)}, bytes(4)), "at most 4 sizes"),
    "many dimensions": (safetensors({"t": entry([9] * 100_000)}, bytes(8)), "at most 4 sizes"),
    "one offset": (safetensors({"t": entry() | {"data_offsets": [0]}}, bytes(8)), "data_offsets"),
    "offsets backwards": (safetensors({"t": entry([], 8, 4)}, bytes(8)), "data_offsets"),
    "fewer bytes than the shape": (safetensors({"t": entry([3])}, bytes(8)), "needs 12 bytes; its offsets span 8"),
    "a file cut short": (safetensors({"t": entry()}, bytes(7)), "tensor 't' ends at byte"),
    "offsets far outside": (
        safetensors({"t": entry([2], 1 << 39, (1 << 39) + 8)}, bytes(8)),
        "tensor 't' ends at byte",
    ),
    "an overlap": (
        safetensors({"t": entry(), "u": entry([2], 4, 12)}, bytes(12)),
        "tensor 'u' at byte .* overlaps tensor 't'",
    ),
    "a gap": (
        safetensors({"t": entry(), "u": entry([1], 12, 16)}, bytes(16)),
        "'u' at byte .* leaves a gap after tensor 't'",
    ),
    "a gap at the front": (safetensors({"t": entry([1], 4, 8)}, bytes(8)), "leaves a gap after the header"),
    "bytes at the end": (safetensors({"t": entry()}, bytes(11)), "3 bytes follow tensor 't'"),
    "a long name": (safetensors({"t" * (MAX_NAME_CHARS + 1): entry()}, bytes(8)), f"limit is {MAX_NAME_CHARS}"),
}


@pytest.mark.parametrize(("data", "complaint"), FAULTS.values(), ids=FAULTS.keys())
def test_a_file_that_does_not_match_its_header_is_refused(path: Path, data: bytes, complaint: str) -> None:
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(AdapterError, match=complaint) as refusal:
            read(path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.name in str(refusal.value)
    assert peak_bytes < 8 << 20


def test_the_same_file_without_the_fault_is_read(path: Path) -> None:
    path.write_bytes(safetensors({"t": entry(), "__metadata__": {"format": "pt"}}, bytes(8)))
    start = path.stat().st_size - 8
    assert read(path) == {"t": TensorEntry("t", "F32", (2,), start, start + 8)}


def test_metadata_that_is_null_is_none(path: Path) -> None:
    """MLX writes it; to the safetensors library it is as if the key were missing."""
    path.write_bytes(safetensors({"t": entry(), "__metadata__": None}, bytes(8)))
    assert list(read(path)) == ["t"]


def test_tensors_come_in_the_order_in_which_they_lie_in_the_file(path: Path) -> None:
    header = {"second": entry([1], 8, 12), "first": entry(), "empty": entry([0], 8, 8), "scalar": entry([], 12, 16)}
    path.write_bytes(safetensors(header, bytes(16)))
    assert list(read(path)) == ["first", "empty", "second", "scalar"]


def test_entries_point_to_the_values_that_the_library_wrote(path: Path) -> None:
    tensors = {"a": np.arange(7, dtype=np.float32), "b": np.arange(6, dtype=np.float16).reshape(2, 3)}
    save_file(tensors, path, metadata={"format": "pt"})
    data = path.read_bytes()
    found = read(path)
    assert {name: entry.shape for name, entry in found.items()} == {"a": (7,), "b": (2, 3)}
    for name, entry_ in found.items():
        assert data[entry_.start : entry_.stop] == tensors[name].tobytes()
