"""Our sampling steps against the processors of transformers, put together literally."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from intaglio.ops import LogprobsQuery, SamplingRow
from intaglio.ops.reference import ReferenceOps
from intaglio.ops.sampling import penalized, top_k, top_p

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Int = NDArray[np.int64]

U = 2.0**-24  # largest relative error of one rounding to float32

ROW = SamplingRow(
    temperature=1.0,
    top_k=None,
    top_p=None,
    repetition_penalty=1.0,
    frequency_penalty=0.0,
    presence_penalty=0.0,
    seed=0,
    position=0,
    prompt_ids=(),
    output_ids=(),
)


def penalized_by_transformers(logits: F32, row: SamplingRow) -> F64:
    """The logits after the penalties, in float64, where transformers' own rounding is nothing beside ours."""
    import torch
    from transformers import generation as hf

    scores = torch.from_numpy(logits).double()[None]
    seen = torch.tensor([[*row.prompt_ids, *row.output_ids]])
    if row.repetition_penalty != 1 and seen.numel():
        scores = hf.RepetitionPenaltyLogitsProcessor(row.repetition_penalty)(seen, scores)
    # transformers has neither of these two; OpenAI's definition, as its API reference writes it.
    counts = torch.bincount(torch.tensor(row.output_ids, dtype=torch.long), minlength=scores.shape[1])
    scores = scores - row.frequency_penalty * counts.double() - row.presence_penalty * (counts > 0).double()
    penalized: F64 = scores[0].numpy()
    return penalized


def rounding_of_penalties(logits: F32, row: SamplingRow) -> F64:
    """How far `penalized` may be from the exact values.

    Rounded are the repetition penalty and the product with it; the frequency penalty, its product with the count, the
    presence penalty, the sum of these two; and the difference: none is more than four times in it, with U of its size.
    """
    largest_product = np.abs(logits.astype(np.float64)) * max(row.repetition_penalty, 1 / row.repetition_penalty)
    frequency = abs(row.frequency_penalty) * len(row.output_ids)
    return 4 * U * (largest_product + frequency + abs(row.presence_penalty))


def warped_by_transformers(logits: F32, row: SamplingRow) -> F64:
    """The logits after temperature, top-k and top-p, -inf where a token was dropped; in float64 too."""
    import torch
    from transformers import generation as hf

    scores, seen = torch.from_numpy(logits).double()[None], torch.tensor([[]])
    scores = hf.TemperatureLogitsWarper(row.temperature)(seen, scores)
    if row.top_k is not None:
        scores = hf.TopKLogitsWarper(row.top_k)(seen, scores)
    if row.top_p is not None and row.top_p < 1:
        scores = hf.TopPLogitsWarper(row.top_p)(seen, scores)
    warped: F64 = scores[0].numpy()
    return warped


def random_case(seed: int) -> tuple[F32, SamplingRow]:
    rng = np.random.default_rng(seed)
    vocab = int(rng.choice([7, 133, 1025, 5000, 262_144], p=[0.2, 0.3, 0.3, 0.15, 0.05]))
    logits = rng.standard_normal(vocab, dtype=np.float32) * np.float32(rng.choice([0.1, 1.0, 5.0]))
    row = ROW._replace(
        temperature=float(rng.choice([0.1, 0.6, 1.0, 5.0])),
        top_k=None if rng.random() < 0.4 else int(rng.integers(1, min(vocab, 200))),
        top_p=None if rng.random() < 0.3 else float(rng.uniform(0.05, 0.999)),
        repetition_penalty=float(rng.choice([1.0, 0.5, 1.1, 2.0])),
        frequency_penalty=float(rng.choice([0.0, -2.0, 0.5])),
        presence_penalty=float(rng.choice([0.0, -0.3, 2.0])),
        prompt_ids=tuple(rng.integers(0, vocab, 13).tolist()),
        output_ids=tuple(rng.integers(0, min(vocab, 9), int(rng.integers(0, 20))).tolist()),
    )
    return logits, row


class Judgement(NamedTuple):
    """Which tokens may be kept: those that transformers keeps, unless rounding decides whether p is reached, or which
    of two tokens is better.

    sizes         how many: one number, or all that rounding can make of it
    least, most   bounds of what `top_p` may take for a token's exponent
    """

    sizes: set[int]
    least: F64
    most: F64

    @classmethod
    def of(cls, logits: F32, row: SamplingRow) -> Judgement:
        """The rounding in `top_p`:

        The exponent (logit - best) / temperature is rounded three times (the difference, the temperature, the
        quotient), by at most U of its size each. NumPy's exponential in float32 is at most 2.52 units in the last place
        off (so says its loops_exponent_log.dispatch.c.src), each at most 2 * U of the value, which is as if the
        exponent were off by 5.04 * U. Sums are in float64: n values give at most n * 2**-53.
        """
        exponents = (logits.astype(np.float64) - float(logits.max())) / row.temperature
        errors = U * (3 * np.abs(exponents) + 5.04)
        judged = np.isfinite(warped_by_transformers(logits, row))
        sizes = {int(judged.sum())}
        if row.top_p is not None and row.top_p < 1:
            among = np.isfinite(warped_by_transformers(logits, row._replace(top_p=None)))
            sizes = sizes_of_top_p(row.top_p, exponents[among], errors[among])
            assert judged.sum() in sizes, "the bounds do not hold the exact number"
        judgement = cls(sizes, exponents - errors, exponents + errors)
        judgement.check(np.flatnonzero(judged))
        return judgement

    def check(self, kept: Int) -> None:
        """These tokens are as many as they should be, and the best."""
        assert kept.shape[0] in self.sizes
        dropped = np.ones(self.most.shape, bool)
        dropped[kept] = False
        assert not dropped.any() or self.most[kept].min() >= self.least[dropped].max()


def sizes_of_top_p(p: float, exponents: F64, errors: F64) -> set[int]:
    """How many of the best tokens are just enough to reach p of all weight, whatever the errors are."""
    best_first = np.argsort(-exponents, kind="stable")
    low, high = np.exp(exponents - errors)[best_first], np.exp(exponents + errors)[best_first]
    slack = exponents.shape[0] * 2.0**-53
    # A head's part is smallest where its own weights are all at their lower end and the others at their upper one.
    least, most = part_of_heads(low, high) - slack, part_of_heads(high, low) + slack
    first, last = int(np.argmax(most >= p)), int(np.argmax(np.append(least[:-1] >= p, True)))
    return set(range(first + 1, last + 2))


def part_of_heads(heads: F64, others: F64) -> F64:
    """[n - 1]: what part of all the first n have, which weigh `heads`, where those behind them weigh `others`."""
    sums, rests = np.cumsum(heads), np.append(np.cumsum(others[:0:-1])[::-1], 0.0)
    parts: F64 = sums / (sums + rests)
    return parts


def kept_by_us(logits: F32, row: SamplingRow) -> Int:
    scaled = (logits - logits.max()) / np.float32(row.temperature)
    return top_p(scaled, top_k(logits, row.top_k), row.top_p)


@settings(max_examples=100)
@example(seed=93)  # transformers in float32 keeps one token more than in float64; we keep what float64 does
@given(seed=st.integers(0, 2**32 - 1))
def test_penalised_values_kept_sets_and_probabilities_equal_the_chain(seed: int) -> None:
    logits, row = random_case(seed)
    ours = penalized(logits, row)
    assert (np.abs(ours - penalized_by_transformers(logits, row)) <= rounding_of_penalties(logits, row)).all()
    kept = kept_by_us(ours, row)
    Judgement.of(ours, row).check(kept)
    scaled = (ours - ours.max()) / np.float32(row.temperature)
    judged = warped_by_transformers(ours, row._replace(top_k=None, top_p=None))
    np.testing.assert_allclose(probabilities(scaled[kept]), probabilities(judged[kept]), rtol=1e-4, atol=1e-7)


def test_the_comparison_notices_a_kept_set_with_one_token_more_or_less() -> None:
    """In every case but the few whose edge lies within rounding, so that either size passes."""
    noticed = edges = 0
    for seed in range(200):
        logits, row = random_case(seed)
        if row.top_p is None:
            continue
        judgement, among, size = Judgement.of(logits, row), top_k(logits, row.top_k), kept_by_us(logits, row).shape[0]
        best_first = among[np.argsort(-logits[among], kind="stable")]
        others = {size - 1, size + 1} & set(range(1, among.shape[0] + 1))
        edges += not others.isdisjoint(judgement.sizes)
        for other in others - judgement.sizes:
            with pytest.raises(AssertionError):
                judgement.check(best_first[:other])
            noticed += 1
    assert noticed > 200
    assert edges <= 2


def probabilities(scores: NDArray[np.floating]) -> F64:
    weights = np.exp(scores.astype(np.float64) - float(scores.max()))
    return weights / weights.sum()


def test_ties_at_the_last_of_top_k_are_all_kept_as_in_transformers() -> None:
    logits = np.array([1, 3, 2, 2, 0, 2], np.float32)
    warped = warped_by_transformers(logits, ROW._replace(top_k=2))
    assert top_k(logits, 2).tolist() == np.flatnonzero(np.isfinite(warped)).tolist() == [1, 2, 3, 5]


def test_top_p_of_zero_and_over_one_are_as_in_transformers() -> None:
    logits = np.array([1, 3, 2], np.float32)
    for p, expected in ((0.0, [1]), (1.0, [0, 1, 2])):
        warped = warped_by_transformers(logits, ROW._replace(top_p=p))
        assert top_p(logits, np.arange(3), p).tolist() == np.flatnonzero(np.isfinite(warped)).tolist() == expected


@pytest.mark.parametrize("vocab", [7, 256, 262_144])
def test_logprobs_are_torchs_log_softmax_and_topk(vocab: int) -> None:
    import torch

    logits = np.random.default_rng(vocab).standard_normal((2, vocab), dtype=np.float32) * np.float32(6)
    judged = torch.log_softmax(torch.from_numpy(logits).double(), dim=-1)
    count = min(vocab, 20)
    ops = ReferenceOps()
    reports = ops.logprobs(ops.distributions(logits, [0, 1], vocab), [LogprobsQuery(3, count)] * 2)
    for row, report in enumerate(reports):
        values, ids = torch.topk(judged[row], count)
        assert report.chosen == pytest.approx(float(judged[row, 3]), abs=1e-6)
        assert [token for token, _ in report.best] == ids.tolist()
        assert [value for _, value in report.best] == pytest.approx(values.tolist(), abs=1e-6)
