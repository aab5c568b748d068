"""An adapter's matrices keep their values: bit for bit in float32, within 2^-10 in float16, half a step in int8."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.lora.packing import AdapterDtype, count_wider, pack_tensors, rounding
from intaglio.ops import AdapterTensors, LoraPair, TokenRows

HALF_STEP = 2.0**-11  # of eleven bits, relative
TINIEST = 2.0**-25  # half of float16's smallest step, beside a largest value of 1
KEY = (0, "self_attn.q_proj")


def random_pair(seed: int, a_size: float, b_size: float) -> LoraPair:
    random = np.random.default_rng(seed)
    a = random.normal(0, a_size, (3, 133)).astype(np.float32)
    return LoraPair(a, random.normal(0, b_size, (7, 3)).astype(np.float32))


def delta(pair: LoraPair) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """What the pair adds to a weight, [out, in], without rounding."""
    result: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (
        pair.b.astype(np.float64) * np.asarray(pair.scale, np.float64)
    ) @ pair.a.astype(np.float64)
    return result


def packed(pair: LoraPair, dtype: AdapterDtype) -> LoraPair:
    return pack_tensors(AdapterTensors({KEY: pair}), dtype).pairs[KEY]


def test_beside_exact_weights_an_adapter_stays_exact_float32() -> None:
    pair = random_pair(1, 1, 1)
    exact = packed(pair, "float32")
    assert exact.scale == 1.0
    assert np.array_equal(exact.a, pair.a)
    assert np.array_equal(exact.b, pair.b)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_matrices_are_laid_out_as_the_kernels_read_them(dtype: AdapterDtype) -> None:
    pair = packed(random_pair(1, 1, 1), dtype)
    assert pair.a.dtype == pair.b.dtype == dtype
    assert pair.a.flags.c_contiguous
    assert pair.b.T.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_vectors_norms_tables_and_rows_stay_as_they_are(dtype: AdapterDtype) -> None:
    pair = random_pair(1, 1, 1)
    bias, magnitude = np.arange(7, dtype=np.float32), np.ones(7, np.float32)
    whole = AdapterTensors(
        {KEY: LoraPair(pair.a, pair.b, bias=bias, magnitude=magnitude)},
        {(0, "input_layernorm"): np.ones(5, np.float32)},
        {"lm_head": np.ones((3, 5), np.float32)},
        {"embed_tokens": TokenRows(np.array([1], np.int32), np.ones((1, 5), np.float32))},
    )
    kept = pack_tensors(whole, dtype)
    assert kept.pairs[KEY].bias is bias
    assert kept.pairs[KEY].magnitude is magnitude
    assert (kept.norms, kept.tables, kept.rows) == (whole.norms, whole.tables, whole.rows)


sizes = st.integers(-60, 30).map(lambda exponent: 2.0**exponent)


@given(seed=st.integers(0, 1000), a_size=sizes, b_size=sizes)
def test_float16_changes_a_delta_by_a_thousandth_of_its_terms_at_most(seed: int, a_size: float, b_size: float) -> None:
    pair = random_pair(seed, a_size, b_size)
    small = packed(pair, "float16")
    a, b = np.abs(pair.a).astype(np.float64), np.abs(pair.b).astype(np.float64)
    # each value errs by half a step of its own, or of the smallest numbers beside the largest, now 0.5 to 1
    a_error = np.maximum(HALF_STEP * a, TINIEST * 2 * a.max())
    b_error = np.maximum(HALF_STEP * b, TINIEST * 2 * b.max())
    bound = b_error @ a + (b + b_error) @ a_error
    assert (np.abs(delta(small) - delta(pair)) <= bound).all()
    terms = b @ a
    assert np.abs(delta(small) - delta(pair)).max() <= 2.0**-10 * terms.max()


def test_a_young_adapter_with_a_tiny_b_loses_nothing_to_float16() -> None:
    """Its values lie below everything that float16 could hold as they are."""
    pair = random_pair(1, 0.05, 1e-9)
    assert not pair.b.astype(np.float16).any()
    small = packed(pair, "float16")
    assert 0.5 <= np.abs(small.b).max() <= 1
    assert 0.5 <= np.abs(small.a).max() <= 1
    np.testing.assert_allclose(delta(small), delta(pair), rtol=0, atol=2.0**-10 * np.abs(delta(pair)).max())


@given(seed=st.integers(0, 1000), a_size=sizes, b_size=sizes)
def test_int8_is_off_by_half_a_step_of_its_row_at_most(seed: int, a_size: float, b_size: float) -> None:
    pair = random_pair(seed, a_size, b_size)
    small = packed(pair, "int8")
    assert small.a.dtype == small.b.dtype == np.int8
    assert np.abs(small.a).max(axis=1).tolist() == np.abs(small.b).max(axis=0).tolist() == [127] * 3
    a, b = np.abs(pair.a).astype(np.float64), np.abs(pair.b).astype(np.float64)
    half_step = (0.5 + 1e-4) / 127  # and a little for the scales, which are float32
    a_error = np.broadcast_to(half_step * a.max(axis=1, keepdims=True), a.shape)
    b_error = np.broadcast_to(half_step * b.max(axis=0, keepdims=True), b.shape)
    assert (np.abs(delta(small) - delta(pair)) <= b_error @ a + (b + b_error) @ a_error).all()


def cancelling(moved: float, seed: int = 1) -> LoraPair:
    """Halves that differ by the fraction `moved`: their product is about so much smaller than either."""
    first, way = random_pair(seed, 1, 1), random_pair(seed + 1, 1, 1)
    a, b = first.a + np.float32(moved) * way.a, first.b + np.float32(moved) * way.b
    return LoraPair(np.concatenate([a, first.a]), np.concatenate([b, -first.b], axis=1), scale=np.float32(0.5))


@pytest.mark.parametrize(
    ("wanted", "moved", "needed"),
    [
        ("float16", 1, "float16"),
        ("float16", 0.01, "float32"),
        ("float16", 1e-6, "float32"),
        ("int8", 1, "int8"),
        ("int8", 0.06, "float32"),
        ("int8", 1e-3, "float32"),
        ("float32", 1e-3, "float32"),
    ],
)
def test_a_pair_whose_halves_cancel_has_the_bits_that_its_product_needs(
    wanted: AdapterDtype, moved: float, needed: AdapterDtype
) -> None:
    pair, plain = cancelling(moved), random_pair(3, 1, 1)
    tensors = pack_tensors(AdapterTensors({KEY: pair, (1, "self_attn.q_proj"): plain}), wanted)
    small = tensors.pairs[KEY]
    assert small.a.dtype == small.b.dtype == needed
    assert tensors.pairs[1, "self_attn.q_proj"].a.dtype == wanted  # the others keep theirs
    assert count_wider(tensors, wanted) == (wanted != needed)
    allowed = {"float32": 0.0, "float16": 2e-3, "int8": 0.1}[needed]
    error = np.linalg.norm(delta(small) - delta(pair)) / np.linalg.norm(delta(pair))
    assert error <= 1.5 * allowed  # it was measured on a few random inputs


def test_a_row_that_one_large_value_makes_too_coarse_for_int8_becomes_float16() -> None:
    a = np.random.default_rng(1).normal(0, 1, (1, 80_000)).astype(np.float32)
    assert packed(LoraPair(a, np.ones((7, 1), np.float32)), "int8").a.dtype == np.int8
    a[0, 5] = 1000  # a step is now 8, so the others are zeros
    assert packed(LoraPair(a, np.ones((7, 1), np.float32)), "int8").a.dtype == np.float16


def test_the_measured_rounding_is_that_of_the_whole_product() -> None:
    for moved in (1, 0.1, 0.01):
        pair = cancelling(moved)
        rounded = replace(pair, a=pair.a.astype(np.float16), b=pair.b.astype(np.float16))
        exact = np.linalg.norm(delta(rounded) - delta(pair)) / np.linalg.norm(delta(pair))
        assert rounding(pair, rounded) == pytest.approx(exact, rel=0.4)
    zeros = replace(pair, b=np.zeros_like(pair.b))
    assert rounding(zeros, zeros) == 0
    assert rounding(zeros, pair) == math.inf


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_an_untrained_b_of_zeros_stays_zero(dtype: AdapterDtype) -> None:
    pair = LoraPair(random_pair(2, 1, 1).a, np.zeros((7, 3), np.float32))
    small = packed(pair, dtype)
    assert not delta(small).any()


@pytest.mark.parametrize("size", [1e-38, 1e-42])
def test_an_int8_rank_too_small_for_a_scale_stays_finite(size: float) -> None:
    """Its delta is nothing beside any weight; it must become neither a NaN nor an infinity."""
    pair = LoraPair(np.full((1, 5), size, np.float32), np.ones((7, 1), np.float32))
    small = packed(pair, "int8")
    assert np.isfinite(delta(small)).all()
    np.testing.assert_allclose(delta(small), delta(pair), rtol=0.01, atol=1e-38)
