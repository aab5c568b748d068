"""Losses and divergences against the formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio.evaluation.scores import divergence, losses

F32, F64 = NDArray[np.float32], NDArray[np.float64]


def log_softmax(logits: F32) -> F64:
    wide = logits.astype(np.float64)
    found: F64 = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return found


def drawn(rows: int, vocabulary: int, seed: int) -> F32:
    return np.random.default_rng(seed).normal(0, 4, (rows, vocabulary)).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 133])
@pytest.mark.parametrize("vocabulary", [2, 133])
def test_figures_of_a_row_are_those_of_the_formula(rows: int, vocabulary: int) -> None:
    reference, other = drawn(rows, vocabulary, 1), drawn(rows, vocabulary, 2)
    targets = np.random.default_rng(3).integers(0, vocabulary, rows).tolist()
    logs, others = log_softmax(reference), log_softmax(other)
    assert losses(reference, targets) == pytest.approx(-logs[np.arange(rows), targets], rel=1e-5, abs=1e-6)
    found = divergence(reference, other)
    assert found.kl == pytest.approx((np.exp(logs) * (logs - others)).sum(axis=1), rel=1e-4, abs=1e-6)
    assert found.same_best.tolist() == (logs.argmax(axis=1) == others.argmax(axis=1)).tolist()


def test_equal_logits_have_exactly_no_divergence_and_a_constant_makes_no_difference() -> None:
    logits = drawn(40, 1000, 5)
    assert (divergence(logits, logits.copy()).kl == 0).all()
    assert divergence(logits, logits + np.float32(2)).kl.max() < 1e-11


def test_a_small_divergence_is_not_lost_in_rounding() -> None:
    logits = drawn(20, 1000, 5)
    nudged = logits.copy()
    nudged[:, 0] += np.float32(1e-3)
    logs, others = log_softmax(logits), log_softmax(nudged)
    expected = (np.exp(logs) * (logs - others)).sum(axis=1)
    assert divergence(logits, nudged).kl == pytest.approx(expected, rel=0.02, abs=1e-13)


def test_logits_that_differ_by_thousands_give_finite_figures() -> None:
    logits = np.array([[0.0, 5000.0], [5000.0, 0.0]], np.float32)
    assert losses(logits, [0, 0]).tolist() == [5000.0, 0.0]
    assert np.isfinite(divergence(logits[:1], logits[1:]).kl).all()
