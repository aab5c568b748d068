"""From stored tensors to w8, w5 and w4: numbers that are kept, errors of rounding, and tensors that are refused."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError
from intaglio.model.bundled import bundled_model_path
from intaglio.model.quantize import WeightFormat, format_of, quantize, round_to_w4, round_to_w5, round_to_w8
from intaglio.model.weights import RawTensor, open_checkpoint
from intaglio.model.weights.dequantize import dequantize
from intaglio.model.weights.formats import TYPE_BY_NAME
from intaglio.ops import GROUP, QuantizedFormat, QuantizedMatrix
from intaglio.ops.reference.weight import dequantized
from intaglio.settings import Settings
from tests.helpers.drawn_cases import drawn_cases
from tests.model.weights.test_dequantize import ALL_TYPES, random_tensor
from tests.ops.quantized import QUANTIZED

F32 = NDArray[np.float32]

KEPT: list[tuple[str, QuantizedFormat]] = [
    ("Q8_0", "w8"),
    ("Q5_0", "w8"),
    ("Q5_0", "w5"),
    ("Q5_1", "w5"),
    ("Q4_0", "w4"),
    ("Q4_1", "w4"),
    ("IQ4_NL", "w8"),
    ("Q4_K", "w4"),
    ("Q5_K", "w5"),
    ("IQ4_XS", "w8"),
]  # of the last three, not the scales
ROUNDING = {"w8": round_to_w8, "w5": round_to_w5, "w4": round_to_w4}
MOST = {"w8": 127, "w5": 31, "w4": 15}


def steps(matrix: QuantizedMatrix) -> F32:
    """[out, in]: the scale of each element's group."""
    wide = np.repeat(np.abs(matrix.scales.astype(np.float32)), GROUP, axis=1)
    return wide[:, : matrix.shape[1]]


# ----------------------------------------------------------------------------------------------------------------- kept


@pytest.mark.parametrize(("dtype", "fmt"), KEPT[:7])
@settings(max_examples=25, deadline=None)
@given(rows=st.sampled_from([1, 2, 7, 17]), width=st.integers(1, 5), seed=st.integers(0, 2**32))
def test_numbers_with_one_scale_a_group_are_kept_exactly(
    dtype: str, fmt: QuantizedFormat, rows: int, width: int, seed: int
) -> None:
    raw = random_tensor(dtype, (rows, 32 * width), seed)
    matrix = quantize(raw, fmt)
    assert matrix.fmt == fmt
    assert np.array_equal(dequantized(matrix), dequantize(raw))


@pytest.mark.parametrize(("dtype", "fmt"), [("Q4_K", "w4"), ("Q5_K", "w5")])
@settings(max_examples=25, deadline=None)
@given(rows=st.sampled_from([1, 2, 7]), width=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_k_quants_lose_only_the_last_bits_of_their_scales(
    dtype: str, fmt: QuantizedFormat, rows: int, width: int, seed: int
) -> None:
    """Their scales and minima are products of 11 and 6 bits; float16 holds 11."""
    raw = random_tensor(dtype, (rows, 256 * width), seed)
    matrix = quantize(raw, fmt)
    assert matrix.minima is not None
    half_ulp, least = 2.0**-11, 2.0**-25  # relative, and of the smallest numbers
    minima = np.repeat(np.abs(matrix.minima.astype(np.float32)), GROUP, axis=1)
    bound = (matrix.values * steps(matrix) + minima) * half_ulp * 1.001 + MOST[fmt] * least + least
    assert (np.abs(dequantized(matrix) - dequantize(raw)) <= bound).all()
    # The whole numbers are those of the file.
    for place, halves in enumerate((raw.blocks()["q"] & 15, raw.blocks()["q"] >> 4)):
        assert np.array_equal(matrix.values.reshape(-1, 4, 2, 32)[:, :, place] & 15, halves)


# -------------------------------------------------------------------------------------------------------------- rounded


@pytest.mark.parametrize("fmt", QUANTIZED)
@drawn_cases(60)
@given(
    rows=st.sampled_from([1, 2, 7, 17]),
    width=st.sampled_from([1, 7, 31, 32, 33, 133]),
    magnitude=st.sampled_from([1e-9, 1e-6, 1e-4, 0.02, 1.0, 1e3]),
    shift=st.sampled_from([0.0, 3.0, -3.0]),
    seed=st.integers(0, 2**32),
)
def test_other_values_are_rounded_by_half_a_step_at_most(
    fmt: QuantizedFormat, rows: int, width: int, magnitude: float, shift: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = ((rng.standard_normal((rows, width)) + shift) * magnitude).astype(np.float32)
    values[rng.random((rows, width)) < 0.2] = 0
    matrix = ROUNDING[fmt](values)
    assert matrix.values.shape == values.shape
    assert matrix.scales.dtype == np.float16
    assert matrix.values.max() <= MOST[fmt]
    error = np.abs(dequantized(matrix).astype(np.float64) - values)
    assert (error <= steps(matrix) * (0.5 + 1e-4) + 1e-12).all()


@pytest.mark.parametrize("fmt", QUANTIZED)
def test_the_scale_of_a_group_is_the_smallest_that_covers_its_values(fmt: QuantizedFormat) -> None:
    values = np.random.default_rng(1).standard_normal((133, 133)).astype(np.float32)
    matrix = ROUNDING[fmt](values)
    groups = np.pad(values, ((0, 0), (0, 27))).reshape(133, 5, GROUP)
    reach = np.abs(groups).max(axis=2) if fmt == "w8" else groups.max(axis=2) - groups.min(axis=2)
    span = reach / MOST[fmt]
    assert (matrix.scales <= span * (1 + 2**-9)).all()


@pytest.mark.parametrize("fmt", QUANTIZED)
def test_a_group_of_zeros_stays_zero(fmt: QuantizedFormat) -> None:
    values = np.zeros((2, 70), np.float32)
    values[1, 40] = 5
    matrix = ROUNDING[fmt](values)
    assert np.array_equal(dequantized(matrix)[0], values[0])
    assert np.array_equal(dequantized(matrix)[1, :32], values[1, :32])
    assert dequantized(matrix)[1, 40] == pytest.approx(5, rel=2**-10)


@pytest.mark.parametrize("fmt", QUANTIZED)
@pytest.mark.parametrize("dtype", ALL_TYPES)
def test_every_storage_type_becomes_either_format(dtype: str, fmt: QuantizedFormat) -> None:
    raw = random_tensor(dtype, (5, 256), seed=3)
    if dtype in ("F32", "F16", "BF16"):
        raw = plain_tensor(dtype, np.random.default_rng(3).standard_normal((5, 70)))
    matrix, values = quantize(raw, fmt), dequantize(raw)
    assert (matrix.fmt, matrix.shape) == (fmt, raw.shape)
    error, largest = np.abs(dequantized(matrix) - values), np.abs(values).max()
    if fmt == "w8":
        assert (error <= 0.5001 * steps(matrix) + 2**-10 * largest).all()
    else:  # a search may clip single values; the squares of a group are no more than half a step between its extremes
        padded = np.pad(values, ((0, 0), (0, -values.shape[1] % GROUP))).reshape(5, -1, GROUP)
        half_step = (padded.max(axis=2) - padded.min(axis=2)) / MOST[fmt] / 2 + 2**-10 * largest
        squares = np.pad(error**2, ((0, 0), (0, -values.shape[1] % GROUP))).reshape(5, -1, GROUP).sum(axis=2)
        assert (squares <= GROUP * half_step**2).all()


def plain_tensor(dtype: str, values: NDArray[np.float64]) -> RawTensor:
    wide = values.astype(np.float32)
    convert = {
        "F32": lambda: wide,
        "F16": lambda: wide.astype(np.float16),
        "BF16": lambda: (wide.view(np.uint32) >> 16).astype(np.uint16),
    }
    stored = convert[dtype]()
    return RawTensor("blk.0.test.weight", dtype, values.shape, stored.reshape(-1).view(np.uint8))


# -------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("fmt", QUANTIZED)
@pytest.mark.parametrize("dtype", [dtype for dtype, _ in KEPT])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
def test_a_scale_that_is_not_finite_is_refused_by_name(dtype: str, fmt: QuantizedFormat, bad: float) -> None:
    fields = {"d", "m", "dmin"} & set(TYPE_BY_NAME[dtype].layout.names or ())
    for field in fields:
        raw = random_tensor(dtype, (3, 256), seed=1)
        raw.blocks()[field][-1] = bad
        if dtype == "Q4_K":
            raw.blocks()["scales"][-1] = 63  # infinity times a scale of 0 would be a NaN, which is refused too
        with pytest.raises(ModelFormatError, match=r"'blk\.0\.test\.weight' holds a .*NaN or an infinity"):
            quantize(raw, fmt)


def test_a_scale_that_float16_cannot_hold_is_refused_by_name() -> None:
    too_large = random_tensor("Q4_K", (3, 256), seed=1)
    too_large.blocks()["d"][2], too_large.blocks()["scales"][2] = 60_000, 63  # multiplied with each other
    with pytest.raises(ModelFormatError, match=r"'blk\.0\.test\.weight' .* too large for w4"):
        quantize(too_large, "w4")
    for fmt in QUANTIZED:
        huge = plain_tensor("F32", np.full((1, 32), 1e30))
        with pytest.raises(ModelFormatError, match=rf"too large for {fmt}"):
            quantize(huge, fmt)


# --------------------------------------------------------------------------------------------------------- which format

AUTO = {
    "F32": "f32",
    "F16": "f32",
    "BF16": "bf16",
    "Q4_0": "w4",
    "Q4_1": "w4",
    "Q4_K": "w4",
    "Q5_0": "w5",
    "Q5_1": "w5",
    "Q5_K": "w5",
    "Q6_K": "w8",
    "IQ4_NL": "w8",
    "IQ4_XS": "w8",
    "Q8_0": "w8",
}


def test_auto_chooses_a_format_for_every_storage_type() -> None:
    assert set(AUTO) == set(TYPE_BY_NAME)
    for dtype, expected in AUTO.items():
        assert format_of(dtype, "auto", is_table=False) == expected
        assert format_of(dtype, "auto", is_table=True) == expected


@pytest.mark.parametrize("dtype", ALL_TYPES)
def test_a_requested_format_is_used_but_tables_are_never_4_bit(dtype: str) -> None:
    for wanted in ("f32", "bf16", "w8", "w5", "w4"):
        fmt: WeightFormat = wanted  # type: ignore[assignment]
        assert format_of(dtype, fmt, is_table=False) == wanted
        assert format_of(dtype, fmt, is_table=True) == ("w8" if wanted in ("w5", "w4") else wanted)


def test_the_bundled_model_keeps_the_bits_of_its_matrices() -> None:
    found: Counter[tuple[str, str]] = Counter()
    with open_checkpoint(bundled_model_path(Settings().cache_path)) as checkpoint:
        for name in checkpoint.names():
            info = checkpoint.info(name)
            if len(info.shape) == 2:
                is_table = name == "model.embed_tokens.weight"
                found[name.split(".")[-2], format_of(info.dtype, "auto", is_table=is_table)] += 1
    assert found == {
        ("embed_tokens", "w8"): 1,
        ("q_proj", "w5"): 18,
        ("k_proj", "w5"): 18,
        ("v_proj", "w5"): 9,
        ("v_proj", "w8"): 9,
        ("o_proj", "w4"): 18,
        ("gate_proj", "w5"): 18,
        ("up_proj", "w5"): 18,
        ("down_proj", "w4"): 9,
        ("down_proj", "w8"): 9,
    }


@pytest.mark.parametrize("fmt", QUANTIZED)
def test_rounding_piece_by_piece_changes_nothing(fmt: QuantizedFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = random_tensor("Q6_K", (7, 256), seed=5)
    whole = quantize(raw, fmt)
    for rows in (1, 2, 3):
        monkeypatch.setattr("intaglio.model.quantize._PIECE_WEIGHTS", rows * 256)
        pieces = quantize(raw, fmt)
        np.testing.assert_array_equal(pieces.values, whole.values)
        np.testing.assert_array_equal(pieces.scales, whole.scales)
        np.testing.assert_array_equal(pieces.minima, whole.minima)  # type: ignore[arg-type]
