"""The safetensors reader: what the library writes is read, and headers that lie are refused."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from intaglio.errors import ModelFormatError
from intaglio.model.weights.blocks import dequantize
from intaglio.model.weights.safetensors import read_safetensors


def entry(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def safetensors_file(header: Any, data: bytes = bytes(24), length: int | None = None) -> bytes:
    """`header` as JSON, or as the bytes that stand for it; `length` is what the file says, the truth if None."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_what_the_library_writes_is_read_exactly(dtype: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    written = {name: rng.standard_normal(shape).astype(dtype) for name, shape in {"a": (7,), "b": (3, 133)}.items()}
    save_file(written, tmp_path / "t.safetensors", metadata={"format": "pt"})
    read = read_safetensors(tmp_path / "t.safetensors")
    assert set(read) == {"a", "b"}
    for name, values in written.items():
        np.testing.assert_array_equal(dequantize(read[name]), values.astype(np.float32))


HOSTILE = {
    "empty": (b"", "is empty"),
    "seven bytes": (bytes(7), "too few"),
    "2 GB header": (safetensors_file({}, length=2 << 30), "claims 2147483648 bytes"),
    "header past the end": (safetensors_file({}, data=b"", length=3), "claims 3 bytes"),
    "not JSON": (safetensors_file(b"{'a': 1}"), "not JSON"),
    "not UTF-8": (safetensors_file(b'{"\xff": 1}'), "not JSON"),
    "a list": (safetensors_file([]), "not an object"),
    "deep nesting": (safetensors_file(b"[" * 100_000), "not JSON"),
    "a number of 5,000 digits": (safetensors_file(b'{"a":' + b"9" * 5000 + b"}"), "not JSON"),
    "NaN in the header": (safetensors_file(b'{"a": NaN}'), "NaN is not a JSON value"),
    "tensor twice": (safetensors_file(b'{"a": 1, "a": 2}'), "'a' appears twice"),
    "entry not an object": (safetensors_file({"a": 3}), "tensor 'a'"),
    "entry lacks offsets": (safetensors_file({"a": {"dtype": "F32", "shape": [2]}}), "tensor 'a'"),
    "entry has more": (safetensors_file({"a": entry() | {"x": 1}}), "tensor 'a'"),
    "integers": (safetensors_file({"a": entry("I64", (3,))}), "'a' has the type 'I64'"),
    "quantized by GGUF": (safetensors_file({"a": entry("Q8_0", (32,), (0, 34))}), "'a' has the type 'Q8_0'"),
    "dtype not a string": (safetensors_file({"a": entry(["F32"])}), "tensor 'a'"),
    "shape not a list": (safetensors_file({"a": entry(shape=6)}), "tensor 'a'"),
    "shape of booleans": (safetensors_file({"a": entry(shape=[True, True])}), "tensor 'a'"),
    "shape of fractions": (safetensors_file({"a": entry(shape=[2.0, 3.0])}), "tensor 'a'"),
    "negative dimension": (safetensors_file({"a": entry(shape=[-2, -3])}), "tensor 'a'"),
    "dimension over 64 bits": (safetensors_file({"a": entry(shape=[10**4000])}), "tensor 'a'"),
    "many dimensions": (safetensors_file({"a": entry(shape=[9] * 100_000)}), "tensor 'a'"),
    "no dimensions": (safetensors_file({"a": entry(shape=[], offsets=(0, 4))}), "tensor 'a'"),
    "empty dimension": (safetensors_file({"a": entry(shape=[0, 3], offsets=(0, 0))}), "tensor 'a'"),
    "one offset": (safetensors_file({"a": entry(offsets=[0])}), "tensor 'a'"),
    "offsets backwards": (safetensors_file({"a": entry(offsets=[24, 0])}), "give -24"),
    "offsets too short": (safetensors_file({"a": entry(offsets=[0, 20])}), "needs 24 bytes"),
    "truncated": (safetensors_file({"a": entry()}, data=bytes(23)), "ends at offset 24"),
    "trailing bytes": (safetensors_file({"a": entry()}, data=bytes(25)), "1 bytes after the last tensor"),
    "gap": (safetensors_file({"a": entry(offsets=(8, 32))}, data=bytes(32)), "leaves a gap"),
    "overlap": (
        safetensors_file({"a": entry(), "b": entry(shape=(3,), offsets=(12, 24))}),
        "'b' starts at offset 12 where 24 is due: it overlaps",
    ),
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


def test_the_same_file_without_a_lie_is_read(tmp_path: Path) -> None:
    (tmp_path / "good.safetensors").write_bytes(safetensors_file({"a": entry(), "__metadata__": {"format": "pt"}}))
    assert dequantize(read_safetensors(tmp_path / "good.safetensors")["a"]).tolist() == [[0, 0, 0], [0, 0, 0]]


@given(st.data())
@settings(max_examples=300, deadline=None)
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
