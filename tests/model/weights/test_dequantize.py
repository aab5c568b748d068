"""Decoding of every storage type, against the `gguf` package bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import quants
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError
from intaglio.model.weights.dequantize import dequantize
from intaglio.model.weights.formats import TYPE_BY_NAME, RawTensor

ALL_TYPES = sorted(TYPE_BY_NAME)


def random_tensor(dtype: str, shape: tuple[int, ...], seed: int) -> RawTensor:
    """Random bytes for every field; in the floats the top bit of the exponent is off, so that all are finite."""
    kind = TYPE_BY_NAME[dtype]
    num_blocks = int(np.prod(shape)) // kind.block_size
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, num_blocks * kind.layout.itemsize, dtype=np.uint8)
    blocks = data.view(kind.layout)
    for field in {"d", "dmin", "m"} & set(kind.layout.names or ()):
        blocks[field] = (blocks[field].view(np.uint16) & 0xBFFF).view(np.float16)
    if dtype in ("F16", "BF16"):
        data.view(np.uint16)[...] &= 0xBFFF
    if dtype == "F32":
        data.view(np.uint32)[...] &= 0xBFFFFFFF
    return RawTensor("blk.0.test.weight", dtype, shape, data)


def decoded_by_gguf(raw: RawTensor) -> NDArray[np.float32]:
    rows = raw.data.reshape(int(np.prod(raw.shape[:-1])), -1)
    return quants.dequantize(rows, gguf.GGMLQuantizationType[raw.dtype]).reshape(raw.shape)


@pytest.mark.parametrize("dtype", ALL_TYPES)
@given(rows=st.sampled_from([1, 2, 3, 7]), width=st.integers(1, 3), seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_every_type_decodes_bit_for_bit_like_ggml(dtype: str, rows: int, width: int, seed: int) -> None:
    raw = random_tensor(dtype, (rows, width * TYPE_BY_NAME[dtype].block_size), seed)
    values = dequantize(raw)
    assert values.dtype == np.float32
    assert values.shape == raw.shape
    assert values.flags.c_contiguous
    np.testing.assert_array_equal(values.view(np.uint32), decoded_by_gguf(raw).view(np.uint32))


@pytest.mark.parametrize("dtype", ["Q8_0", "Q6_K", "BF16"])
def test_a_tensor_large_enough_for_threads_decodes_the_same(dtype: str) -> None:
    raw = random_tensor(dtype, (2741, 512), seed=5)
    np.testing.assert_array_equal(dequantize(raw).view(np.uint32), decoded_by_gguf(raw).view(np.uint32))


@pytest.mark.parametrize("dtype", ALL_TYPES)
def test_a_value_that_is_not_finite_is_refused_with_the_tensor_named(dtype: str) -> None:
    raw = random_tensor(dtype, (3, 256), seed=1)
    field = "d" if "d" in (TYPE_BY_NAME[dtype].layout.names or ()) else "value"
    blocks = raw.data.view(TYPE_BY_NAME[dtype].layout)
    blocks[field][-1] = np.inf if dtype != "BF16" else 0x7FC0
    with pytest.raises(ModelFormatError, match=r"'blk\.0\.test\.weight' holds a NaN or an infinity"):
        dequantize(raw)


def test_block_sizes_are_those_of_ggml() -> None:
    for name, kind in TYPE_BY_NAME.items():
        known = gguf.GGMLQuantizationType[name]
        assert kind.ggml_id == known.value
        assert (kind.block_size, kind.layout.itemsize) == gguf.GGML_QUANT_SIZES[known]
