"""Inconsistent GGUF files. Each must raise a ModelFormatError with the reason, quickly and in little memory."""

from __future__ import annotations

import functools
import struct
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.errors import ModelFormatError
from intaglio.model.weights import StringArray, open_checkpoint
from tests.helpers.checkpoints import random_weights, tiny_config, write_gguf
from tests.helpers.drawn_cases import drawn_cases
from tests.model.weights.gguf_bytes import ARRAY, BOOL, F32, STRING, U8, U32, gguf_file, key, string, tensor

ARCHITECTURE = key("general.architecture", STRING, string("gemma"))
NORM = "output_norm.weight"
HUGE = (1 << 64) - 1


def array(item_type: int, length: int, payload: bytes = b"") -> bytes:
    return struct.pack("<IQ", item_type, length) + payload


def with_tensors(*tensors: bytes, data: bytes = bytes(64)) -> bytes:
    return gguf_file([ARCHITECTURE], tensors, data)


HOSTILE = {
    "empty": (b"", "is empty"),
    "three bytes": (b"GGU", "cut off"),
    "another magic": (gguf_file(magic=b"GGML"), "not a GGUF file"),
    "a pickle": (b"\x80\x02}q\x00." + bytes(64), "not a GGUF file"),
    "version 1": (gguf_file(version=1), "version 1"),
    "version 4": (gguf_file(version=4), "version 4"),
    "big-endian": (gguf_file(version=0x03000000), "version 50331648"),
    "too many tensors": (gguf_file([ARCHITECTURE], num_tensors=HUGE), f"{HUGE} tensors"),
    "too many keys": (gguf_file(num_keys=1 << 40), "keys; the limit is"),
    "more keys than bytes": (gguf_file(num_keys=9), "announces 9 keys"),
    "key longer than the file": (gguf_file([string("a", HUGE)]), "bytes of a key"),
    "empty key": (gguf_file([key("", U8, b"\1")]), "is empty"),
    "key twice": (gguf_file([key("a", U8, b"\1"), key("a", U8, b"\1")]), "'a' appears twice"),
    "key not UTF-8": (gguf_file([string(b"\xff") + struct.pack("<IB", U8, 1)]), "a key is not UTF-8"),
    "value not UTF-8": (gguf_file([key("a", STRING, string(b"\xff"))]), "key 'a' is not UTF-8"),
    "value longer than the file": (gguf_file([key("a", STRING, string("x", HUGE))]), "value of key 'a'"),
    "unknown value type": (gguf_file([key("a", 13, b"")]), "value type 13"),
    "boolean of 2": (gguf_file([key("a", BOOL, b"\2")]), "a boolean of 2"),
    "array of unknown type": (gguf_file([key("a", ARRAY, array(77, 0))]), "value type 77"),
    "array of arrays": (gguf_file([key("a", ARRAY, array(ARRAY, 1, array(U8, 1, b"\1")))]), "value type 9"),
    "endless numbers": (gguf_file([key("a", ARRAY, array(F32, HUGE))]), "entries in key 'a'"),
    "numbers past the end": (gguf_file([key("a", ARRAY, array(F32, 12, bytes(16)))]), "cut off"),
    "endless strings": (gguf_file([key("a", ARRAY, array(STRING, 1 << 40))]), "entries in key 'a'"),
    "strings past the end": (gguf_file([key("a", ARRAY, array(STRING, 3, string("x")))]), "ends within string"),
    "string past the end": (gguf_file([key("a", ARRAY, array(STRING, 1, string("x", HUGE)))]), "ends within string 0"),
    "no architecture": (gguf_file(), "general.architecture is None"),
    "another architecture": (gguf_file([key("general.architecture", STRING, string("llama"))]), "'llama'"),
    "architecture a number": (gguf_file([key("general.architecture", U32, bytes(4))]), "architecture is 0"),
    "one of three parts": (gguf_file([ARCHITECTURE, key("split.count", 2, b"\3\0")]), "one of 3 parts"),
    "alignment zero": (gguf_file([ARCHITECTURE, key("general.alignment", U32, bytes(4))]), "alignment is 0"),
    "alignment 24": (gguf_file([ARCHITECTURE, key("general.alignment", U32, b"\x18\0\0\0")]), "alignment is 24"),
    "alignment a string": (gguf_file([ARCHITECTURE, key("general.alignment", STRING, string("32"))]), "'32'"),
    "unknown type": (with_tensors(tensor(NORM, [16], type_id=10)), f"'{NORM}' has the ggml type Q2_K (10)"),
    "no dimensions": (with_tensors(tensor(NORM, [])), "has 0 dimensions"),
    "five dimensions": (with_tensors(tensor(NORM, [1] * 5)), "has 5 dimensions"),
    "dimension of zero": (with_tensors(tensor(NORM, [0])), "shape [0]"),
    "endless dimensions": (with_tensors(tensor(NORM, [HUGE] * 4)), "ends at byte"),
    "part of a block": (with_tensors(tensor("token_embd.weight", [48, 2], type_id=8)), "rows of 48 elements"),
    "misaligned": (with_tensors(tensor(NORM, [4], offset=8)), "offset 8, not a multiple of 32"),
    "offset past the end": (with_tensors(tensor(NORM, [4], offset=1 << 40)), "ends at byte"),
    "data past the end": (with_tensors(tensor(NORM, [17])), "ends at byte"),
    "tensor twice": (with_tensors(tensor(NORM, [4]), tensor(NORM, [4], offset=32)), f"'{NORM}' appears twice"),
    "overlap": (with_tensors(tensor(NORM, [16]), tensor("token_embd.weight", [4], offset=32)), "overlap"),
    "unknown tensor": (with_tensors(tensor("blk.0.ssm_in.weight", [4])), "'blk.0.ssm_in.weight'"),
    "tensor of Gemma 3": (with_tensors(tensor("blk.0.attn_q_norm.weight", [4])), "'blk.0.attn_q_norm.weight'"),
    "layer 01": (with_tensors(tensor("blk.01.attn_norm.weight", [4])), "'blk.01.attn_norm.weight'"),
    "a bias": (with_tensors(tensor("blk.0.attn_q.bias", [4])), "'blk.0.attn_q.bias'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_is_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    content, reason = HOSTILE[case]
    (tmp_path / "hostile.gguf").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFormatError) as caught:
            open_checkpoint(tmp_path / "hostile.gguf")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reason in str(caught.value)
    assert "hostile.gguf" in str(caught.value)
    assert peak_bytes < 1 << 20


def test_the_same_file_without_the_fault_is_read(tmp_path: Path) -> None:
    """The functions that make the files of the table above make valid files if nothing in them is false."""
    layout = tensor(NORM, [4]), tensor("token_embd.weight", [4], offset=32)
    (tmp_path / "good.gguf").write_bytes(with_tensors(*layout))
    assert open_checkpoint(tmp_path / "good.gguf").names() == ["model.norm.weight", "model.embed_tokens.weight"]


def test_a_sparse_file_of_zeros_is_refused_at_once(tmp_path: Path) -> None:
    """Ten gigabytes that take no space on disk, read as an array of as many empty strings as is allowed."""
    path = tmp_path / "sparse.gguf"
    long_array = key("a", ARRAY, array(STRING, 1 << 22))
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 1 << 16, 1 << 16) + long_array)
        file.truncate(10 << 30)
    with pytest.raises(ModelFormatError, match="key '' is empty"):
        open_checkpoint(path)


@functools.cache
def small_file() -> bytes:
    config = tiny_config("gemma3_text", num_hidden_layers=1, vocab_size=11, hidden_size=32, intermediate_size=64)
    with tempfile.TemporaryDirectory() as folder:
        return write_gguf(Path(folder) / "m.gguf", config, random_weights(config), types="Q4_0").read_bytes()


def open_and_read_all(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(content)
        file.flush()
        with open_checkpoint(Path(file.name)) as checkpoint:
            for name in checkpoint.names():
                checkpoint.tensor(name)
            for value in checkpoint.raw_config.values():
                if isinstance(value, StringArray):
                    list(value)


@given(st.data())
@drawn_cases(300)
def test_a_file_cut_anywhere_is_refused(data: st.DataObject) -> None:
    content = small_file()
    padding = 32  # the writer pads after the last tensor; without that the file is still whole
    length = data.draw(st.integers(0, len(content) - padding - 1))
    with pytest.raises(ModelFormatError):
        open_and_read_all(content[:length])


@given(st.data())
@drawn_cases(500)
def test_a_damaged_file_is_read_or_refused_but_never_breaks_the_reader(data: st.DataObject) -> None:
    content = bytearray(small_file())
    header = content.index(b"output_norm.weight") + 100
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, header))
        content[position] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    try:
        open_and_read_all(bytes(content))
    except ModelFormatError as error:
        assert str(error)
