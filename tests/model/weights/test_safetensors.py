"""The safetensors reader: files of the library are read, and inconsistent headers are refused."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from intaglio.errors import ModelFormatError
from intaglio.model.weights.dequantize import dequantize
from intaglio.model.weights.safetensors import read_safetensors
from tests.helpers.drawn_cases import drawn_cases


def entry(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def safetensors_file(header: Any, data: bytes = bytes(24), length: int | None = None) -> bytes:
    """A file with `header` as JSON, or as raw bytes. `length` is written as its size; None: the true size."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_files_of_the_safetensors_library_are_read_exactly(dtype: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    written = {name: rng.standard_normal(shape).astype(dtype) for name, shape in {"a": (7,), "b": (3, 133)}.items()}
    save_file(written, tmp_path / "t.safetensors", metadata={"format": "pt"})
    read = read_safetensors(tmp_path / "t.safetensors")
    assert set(read) == {"a", "b"}
    for name, values in written.items():
        np.testing.assert_array_equal(dequantize(read[name]), values.astype(np.float32))


HOSTILE = {  # more of the header in tests/files/test_safetensors_header.py
    "empty": (b"", "0 bytes are too few"),
    "header over the limit": (safetensors_file(b" " * ((4 << 20) + 1)), "the limit is 4194304"),
    "five dimensions": (safetensors_file({"a": entry(shape=[1] * 4 + [6])}), "at most 4"),
    "no dimensions": (safetensors_file({"a": entry(shape=[], offsets=(0, 4))}, data=bytes(4)), "at least 1"),
    "empty dimension": (safetensors_file({"a": entry(shape=[0, 3], offsets=(0, 0))}, data=b""), "at least 1"),
    "truncated": (safetensors_file({"a": entry()}, data=bytes(23)), "tensor 'a' ends at byte"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_is_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    content, reason = HOSTILE[case]
    (tmp_path / "hostile.safetensors").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFormatError) as caught:
            read_safetensors(tmp_path / "hostile.safetensors")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reason in str(caught.value)
    assert "hostile.safetensors" in str(caught.value)
    assert peak_bytes < 8 << 20


def test_the_same_file_without_the_fault_is_read(tmp_path: Path) -> None:
    (tmp_path / "good.safetensors").write_bytes(safetensors_file({"a": entry(), "__metadata__": {"format": "pt"}}))
    assert dequantize(read_safetensors(tmp_path / "good.safetensors")["a"]).tolist() == [[0, 0, 0], [0, 0, 0]]


@given(st.data())
@drawn_cases(300)
def test_a_damaged_file_is_read_or_refused_but_never_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    whole = safetensors_file({"a": entry(), "b": entry("BF16", (3, 2), (24, 36))}, data=bytes(36))
    content = bytearray(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    for _ in range(data.draw(st.integers(0, 3)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        for raw in read_safetensors(path).values():
            dequantize(raw)
    except ModelFormatError as error:
        assert str(error)
