"""Our sampling steps against the processors of transformers, put together literally."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio.ops import LogprobsQuery, SamplingRow
from intaglio.ops.reference import ReferenceOps
from intaglio.ops.sampling import penalized, top_k, top_p

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

F32 = NDArray[np.float32]

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


def chain(logits: F32, row: SamplingRow) -> tuple[F32, F32]:
    """(after the penalties, after temperature, top-k and top-p), the second -inf where a token was dropped."""
    import torch
    from transformers import generation as hf

    scores = torch.from_numpy(logits.copy())[None]
    seen = torch.tensor([[*row.prompt_ids, *row.output_ids]])
    if row.repetition_penalty != 1 and seen.numel():
        scores = hf.RepetitionPenaltyLogitsProcessor(row.repetition_penalty)(seen, scores)
    # transformers has neither of these two; OpenAI's definition, as its API reference writes it.
    counts = torch.bincount(torch.tensor(row.output_ids, dtype=torch.long), minlength=scores.shape[1])
    scores = scores - row.frequency_penalty * counts.float() - row.presence_penalty * (counts > 0).float()
    after_penalties = scores[0].numpy().copy()
    scores = hf.TemperatureLogitsWarper(row.temperature)(seen, scores)
    if row.top_k is not None:
        scores = hf.TopKLogitsWarper(row.top_k)(seen, scores)
    if row.top_p is not None and row.top_p < 1:
        scores = hf.TopPLogitsWarper(row.top_p)(seen, scores)
    return after_penalties, scores[0].numpy()


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


@pytest.mark.parametrize("seed", range(100))
def test_penalised_values_kept_sets_and_probabilities_equal_the_chain(seed: int) -> None:
    logits, row = random_case(seed)
    after_penalties, after_all = chain(logits, row)
    ours = penalized(logits, row)
    np.testing.assert_allclose(ours, after_penalties, rtol=0, atol=1e-6)
    scaled = (ours - ours.max()) / np.float32(row.temperature)
    kept = top_p(scaled, top_k(scaled, row.top_k), row.top_p)
    assert kept.tolist() == np.flatnonzero(np.isfinite(after_all)).tolist()
    np.testing.assert_allclose(probabilities(scaled[kept]), probabilities(after_all[kept]), rtol=1e-4, atol=1e-7)


def probabilities(scores: F32) -> NDArray[np.float64]:
    weights = np.exp(scores.astype(np.float64) - float(scores.max()))
    return weights / weights.sum()


def test_ties_at_the_last_of_top_k_are_all_kept_as_there() -> None:
    logits = np.array([1, 3, 2, 2, 0, 2], np.float32)
    _, after_all = chain(logits, ROW._replace(top_k=2))
    assert top_k(logits, 2).tolist() == np.flatnonzero(np.isfinite(after_all)).tolist() == [1, 2, 3, 5]


def test_top_p_of_zero_and_over_one_as_there() -> None:
    logits = np.array([1, 3, 2], np.float32)
    for p, expected in ((0.0, [1]), (1.0, [0, 1, 2])):
        _, after_all = chain(logits, ROW._replace(top_p=p))
        assert top_p(logits, np.arange(3), p).tolist() == np.flatnonzero(np.isfinite(after_all)).tolist() == expected


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
