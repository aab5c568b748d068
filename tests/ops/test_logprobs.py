"""Log-probabilities of the raw logits, and masks, on every backend; judged by float64 written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from intaglio.ops import LogprobsQuery, Ops
from intaglio.ops.logprobs import best_tokens
from tests.ops.backends import SIZES

# The logits are float32 and may be as large as 100: their own last bit is worth 4e-6.
TOLERANCE = 4e-6

Logits = NDArray[np.float32]


def random_logits(seed: int, rows: int, vocab: int, spread: float = 8) -> Logits:
    return np.random.default_rng(seed).standard_normal((rows, vocab), dtype=np.float32) * np.float32(spread)


def judged(logits: Logits) -> NDArray[np.float64]:
    exact = logits.astype(np.float64)
    return exact - np.log(np.exp(exact - exact.max()).sum()) - exact.max()


@pytest.mark.parametrize("vocab", [*SIZES, 255, 256, 257, 5000, 262_144])
def test_logprobs_are_those_of_float64(ops: Ops, vocab: int) -> None:
    logits = random_logits(vocab, 3, vocab + 5)  # five padding columns
    found = ops.distributions(logits, [0, 2], vocab)
    count = min(vocab, 20)
    reports = ops.logprobs(found, [LogprobsQuery(vocab // 2, count), LogprobsQuery(0, 0)])
    first, third = judged(logits[0, :vocab]), judged(logits[2, :vocab])
    assert reports[0].chosen == pytest.approx(first[vocab // 2], abs=TOLERANCE)
    assert reports[1].chosen == pytest.approx(third[0], abs=TOLERANCE)
    assert reports[0].rank == 1 + int((logits[0, :vocab] > logits[0, vocab // 2]).sum())
    assert reports[1].best == []
    order = np.lexsort((np.arange(vocab), -logits[0, :vocab]))[:count]
    assert [token for token, _ in reports[0].best] == order.tolist()
    assert [logprob for _, logprob in reports[0].best] == pytest.approx(first[order], abs=TOLERANCE)


def test_a_logprob_is_exact_where_it_is_known_in_closed_form(ops: Ops) -> None:
    uniform = np.full((1, 1000), 7, np.float32)
    certain = np.full((1, 1000), -80, np.float32)
    certain[0, 3] = 80
    for logits, token, expected in ((uniform, 999, -math.log(1000)), (certain, 3, 0.0), (certain, 4, -160.0)):
        (report,) = ops.logprobs(ops.distributions(logits, [0], 1000), [LogprobsQuery(token, 1)])
        assert report.chosen == pytest.approx(expected, abs=1e-7)


def test_what_happens_to_the_logits_afterwards_changes_nothing(ops: Ops) -> None:
    logits = random_logits(1, 1, 300)
    expected = judged(logits[0])
    found = ops.distributions(logits, [0], 300)
    logits[:] = 0
    (report,) = ops.logprobs(found, [LogprobsQuery(7, 2)])
    assert report.chosen == pytest.approx(expected[7], abs=TOLERANCE)


def test_a_row_without_finite_logits_does_not_affect_other_rows(ops: Ops) -> None:
    logits = random_logits(1, 3, 300)
    logits[0], logits[1, 5] = -np.inf, np.nan
    reports = ops.logprobs(ops.distributions(logits, [0, 1, 2], 300), [LogprobsQuery(0, 3)] * 3)
    assert reports[2].chosen == pytest.approx(judged(logits[2])[0], abs=TOLERANCE)


@given(
    values=st.lists(st.sampled_from([-3.0, 0.0, 0.5, 0.5, 2.0, float("-inf")]), min_size=1, max_size=1500),
    count=st.integers(0, 20),
)
def test_of_equal_tokens_the_lower_id_is_better(values: list[float], count: int) -> None:
    logits = np.array(values, np.float32)
    by_hand = sorted((i for i, value in enumerate(values) if math.isfinite(value)), key=lambda i: (-values[i], i))
    assert best_tokens(logits, count) == by_hand[:count]


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 133, 256])
def test_a_mask_forbids_what_it_does_not_allow_in_its_row_alone(ops: Ops, columns: int) -> None:
    rng = np.random.default_rng(columns)
    masked = columns - columns // 5  # the mask may be shorter than the row: the rest is padding
    bits = rng.random(masked) < 0.5
    allowed = np.packbits(bits, bitorder="little").tobytes()
    logits = random_logits(2, 3, columns)
    expected = logits.copy()
    expected[1, :masked][~bits] = -np.inf
    expected[1, 8 * len(allowed) :] = -np.inf
    spare = slice(masked, min(8 * len(allowed), columns))  # bits of the last byte past the mask are 0
    expected[1, spare] = -np.inf
    ops.mask_tokens(logits, 1, allowed)
    assert logits.tobytes() == expected.tobytes()
