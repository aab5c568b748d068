"""Reads what the official writer writes, and names what is wrong with everything else."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save, save_file

from intaglio.errors import AdapterError
from intaglio.lora.peft.safetensors_file import MAX_HEADER_BYTES, SafetensorsFile

LIMIT = 10_000_000


def read_all(path: Path) -> dict[str, Any]:
    with SafetensorsFile(path, LIMIT) as file:
        return {name: file.read(name) for name in file.entries}


def packed(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: Any = (2,), start: Any = 0, stop: Any = 8, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adapter_model.safetensors"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_stored_type_becomes_the_same_float32(path: Path, dtype: Any) -> None:
    random = np.random.default_rng(7)
    tensors = {f"t{n}": random.normal(0, 3, (n, 133)).astype(dtype) for n in (1, 2, 7)}
    tensors["long"] = random.normal(0, 1e-3, (1 << 20) + 3).astype(dtype)  # more than one chunk
    save_file(tensors, path, metadata={"format": "pt"})
    for name, read in read_all(path).items():
        assert read.dtype == np.float32 and read.flags.c_contiguous and read.flags.writeable
        np.testing.assert_array_equal(read, tensors.pop(name).astype(np.float32))
    assert not tensors


FAULTS: dict[str, tuple[bytes, str]] = {  # more of the header in tests/files/test_safetensors_header.py
    "a long header": (packed(b" " * (MAX_HEADER_BYTES + 1)), f"the limit is {MAX_HEADER_BYTES}"),
    "many dimensions": (packed({"t": entry([1] * 9, stop=4)}, bytes(4)), "at most 8"),
    "a file cut short": (packed({"t": entry()}, bytes(7)), "tensor 't' ends at byte"),
}


@pytest.mark.parametrize(("data", "complaint"), FAULTS.values(), ids=FAULTS.keys())
def test_a_damaged_header_is_refused_with_what_is_wrong(path: Path, data: bytes, complaint: str) -> None:
    path.write_bytes(data)
    with pytest.raises(AdapterError, match=complaint) as refusal:
        read_all(path)
    assert path.name in str(refusal.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_tensor(path: Path, dtype: Any, value: float) -> None:
    spoiled = np.ones((3, 7), dtype)
    spoiled[2, 6] = value
    save_file({"good": np.ones((2, 2), dtype), "spoiled": spoiled}, path)
    with SafetensorsFile(path, LIMIT) as file:
        file.check_values("good")
        for act in (file.read, file.check_values):
            with pytest.raises(AdapterError, match="tensor 'spoiled' holds values that are NaN or infinite"):
                act("spoiled")


def test_a_missing_file_a_folder_and_a_file_over_the_limit_are_refused(path: Path) -> None:
    with pytest.raises(AdapterError, match="cannot be read: No such file"):
        SafetensorsFile(path, LIMIT)
    path.write_bytes(save({"t": np.ones(2, np.float32)}))
    with pytest.raises(AdapterError, match="bytes; the limit is 12"):
        SafetensorsFile(path, 12)
    path.unlink()
    path.mkdir()
    with pytest.raises(AdapterError, match="is not a regular file"):
        SafetensorsFile(path, LIMIT)


def test_a_file_that_shrinks_while_it_is_read_is_refused(path: Path) -> None:
    path.write_bytes(save({"t": np.ones(100_000, np.float32)}))
    with SafetensorsFile(path, LIMIT) as file:
        with path.open("r+b") as writer:
            writer.truncate(200_001)
        with pytest.raises(AdapterError, match="the file ends inside tensor 't'"):
            file.read("t")


def test_checking_the_values_takes_little_memory_and_refusing_takes_less(path: Path) -> None:
    values = np.ones((64, 200_000), np.float16)  # 26 MB in the file, 51 MB as float32
    save_file({"t": values}, path)
    peak = peak_bytes(path, 100_000_000)
    assert peak < 16_000_000
    path.write_bytes(packed({"t": entry([1 << 38], 0, 1 << 40)}, length=None))
    assert peak_bytes(path, 100_000_000) < 100_000


def peak_bytes(path: Path, limit: int) -> int:
    tracemalloc.start()
    try:
        with SafetensorsFile(path, limit) as file:
            file.check_values("t")
    except AdapterError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


GOOD = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones((3, 1), np.float16)}, {"format": "pt"})


@settings(deadline=None)
@given(st.data())
def test_what_the_official_reader_refuses_is_refused_here(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    spoiled = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(32, 126) | st.integers(0, 255))
    path = tmp_path_factory.mktemp("spoiled") / "adapter_model.safetensors"
    path.write_bytes(bytes(spoiled))
    try:
        ours = read_all(path)
    except AdapterError:
        return
    try:
        official = load(bytes(spoiled))
    except safetensors.SafetensorError as error:
        raise AssertionError(f"read here, but the official reader says {error}") from error
    assert ours.keys() == official.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, official[name].astype(np.float32))
