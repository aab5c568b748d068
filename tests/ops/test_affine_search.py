"""Rounding by search: the same in C++ and NumPy, never worse than rounding between extremes, better on average."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from intaglio.model.quantize import round_to_w4, round_to_w5
from intaglio.ops import GROUP, affine_search
from intaglio.ops.affine_search import Affine
from intaglio.ops.cpu import rounding
from tests.helpers.drawn_cases import drawn_cases

F32, F64 = NDArray[np.float32], NDArray[np.float64]
SEARCHES = {"C++": rounding.search_affine, "NumPy": affine_search.search_affine}
BETWEEN_EXTREMES = {15: round_to_w4, 31: round_to_w5}


def restored(found: Affine) -> F64:
    columns = found.whole.shape[1]
    scales, minima = (np.repeat(one.astype(np.float64), GROUP, axis=1)[:, :columns] for one in found[1:])
    result: F64 = scales * found.whole - minima
    return result


def group_errors(values: F32, found: Affine, weights: F32 | None = None) -> F64:
    """[rows, groups]: the weighted squared error."""
    squares = (restored(found) - values) ** 2 * (1 if weights is None else weights)
    padded = np.pad(squares, ((0, 0), (0, -values.shape[1] % GROUP)))
    summed: F64 = padded.reshape(len(values), -1, GROUP).sum(axis=2)
    return summed


def drawn(rows: int, width: int, magnitude: float, seed: int) -> F32:
    rng = np.random.default_rng(seed)
    values = rng.standard_t(4, (rows, width)) * magnitude + rng.choice([0, 3 * magnitude])
    values[rng.random((rows, width)) < 0.1] = 0
    return values.astype(np.float32)


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("most", BETWEEN_EXTREMES)
@drawn_cases(60)
@given(
    rows=st.sampled_from([1, 2, 7]),
    width=st.sampled_from([1, 7, 31, 32, 33, 133]),
    magnitude=st.sampled_from([1e-9, 1e-6, 1e-4, 0.02, 1.0, 1e3]),
    seed=st.integers(0, 2**32),
)
def test_no_group_is_worse_than_between_its_extremes(
    name: str, most: int, rows: int, width: int, magnitude: float, seed: int
) -> None:
    values = drawn(rows, width, magnitude, seed)
    found = SEARCHES[name](values, most)
    assert found.whole.max() <= most
    nearest = BETWEEN_EXTREMES[most](values)
    plain = Affine(nearest.values, nearest.scales, nearest.minima)  # type: ignore[arg-type]
    # The last bits of a scale or minimum in float16, which has no steps below 2^-24, may be luckier in either.
    largest = np.abs(np.pad(values, ((0, 0), (0, -width % GROUP)))).reshape(rows, -1, GROUP).max(axis=2)
    slack = GROUP * (2.0**-25 * 2 * most + 2.0**-11 * 2 * largest.astype(np.float64)) ** 2
    assert (group_errors(values, found) <= group_errors(values, plain) * 1.05 + slack).all()


@pytest.mark.parametrize("most", BETWEEN_EXTREMES)
def test_the_error_of_ordinary_weights_falls_by_a_fifth(most: int) -> None:
    values = np.random.default_rng(0).normal(0, 0.02, (133, 640)).astype(np.float32)
    nearest = BETWEEN_EXTREMES[most](values)
    plain = Affine(nearest.values, nearest.scales, nearest.minima)  # type: ignore[arg-type]
    ratio = group_errors(values, rounding.search_affine(values, most)).sum() / group_errors(values, plain).sum()
    assert 0.75 < ratio < 0.82


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("most", BETWEEN_EXTREMES)
@pytest.mark.parametrize("width", [1, 31, 32, 133])
def test_cpp_finds_what_the_reference_finds(most: int, width: int, weighted: bool) -> None:
    values = drawn(133, width, 0.02, most + width)
    weights = np.random.default_rng(1).exponential(1, width).astype(np.float32) if weighted else None
    ours, reference = (search(values, most, weights) for search in SEARCHES.values())
    assert (ours.whole == reference.whole).mean() > 0.97  # ties of candidates are decided by the last bits of sums
    errors = [group_errors(values, one, weights) for one in (ours, reference)]
    assert errors[0].sum() == pytest.approx(errors[1].sum(), rel=1e-3)


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_inputs_that_count_more_are_rounded_more_finely(search: rounding.SearchAffine) -> None:
    values = np.random.default_rng(3).normal(0, 0.02, (133, 64)).astype(np.float32)
    weights = np.where(np.arange(64) % 4 == 0, 100, 1).astype(np.float32)
    plain, weighted = search(values, 15), search(values, 15, weights)
    loss = [(restored(one) - values) ** 2 for one in (plain, weighted)]
    assert loss[1][:, ::4].sum() < 0.6 * loss[0][:, ::4].sum()
    assert group_errors(values, weighted, weights).sum() < group_errors(values, plain, weights).sum()


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_groups_without_a_choice_are_exact(search: rounding.SearchAffine) -> None:
    values = np.zeros((3, 64), np.float32)
    values[1] = 0.5  # one value only
    assert np.array_equal(restored(search(values, 15)), values)
    unused = np.zeros(64, np.float32)  # inputs that were never active count alike
    assert np.array_equal(restored(search(values, 15, unused)), values)


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_numbers_too_large_for_float16_give_scales_that_are_not_finite(search: rounding.SearchAffine) -> None:
    values = np.full((1, 32), 1e6, np.float32)
    values[0, 3] = -1e30
    found = search(values, 15)
    assert not np.isfinite(found.minima).all()


def test_a_group_does_not_depend_on_its_neighbours() -> None:
    values = drawn(7, 133, 0.02, 5)
    whole = rounding.search_affine(values, 15)
    for row in range(7):
        alone = rounding.search_affine(values[row : row + 1, 32:64], 15)
        assert np.array_equal(alone.whole[0], whole.whole[row, 32:64])
        assert (alone.scales[0, 0], alone.minima[0, 0]) == (whole.scales[row, 1], whole.minima[row, 1])


@pytest.mark.parametrize("weights", [np.ones(31, np.float32), np.ones(33, np.float32)])
def test_weights_of_another_length_are_refused(weights: F32) -> None:
    with pytest.raises(ValueError, match="a weight for each input"):
        rounding.search_affine(np.zeros((2, 32), np.float32), 15, weights)
