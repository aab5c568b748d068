"""The kernels of every instruction set choose what the specification does.

They weigh tokens in float32 by another exponential than NumPy's, so a random number within 1e-6 of where one token ends
and the next begins may fall to either: cases that lie so near are left out.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.ops import SamplingRow
from intaglio.ops.sampling import adjusted, draw, sample_row, top_k, top_p, uniform
from tests.helpers.drawn_cases import drawn_cases
from tests.ops.backends import KERNELS, shared_kernels
from tests.ops.test_sampling import F32, PLAIN, one, random_logits

pytestmark = pytest.mark.skipif(not KERNELS, reason="NumPy is the specification that kernels are held to here")


def far_from_a_boundary(logits: F32, row: SamplingRow) -> bool:
    """Whether nudging the random number, and what top-p asks for, by 1e-6 changes nothing."""
    penal = adjusted(logits, row)
    with np.errstate(over="ignore"):
        scaled = (penal - penal.max()) / np.float32(row.temperature)
    u = uniform(row.seed, row.position)
    tokens = set()
    for nudge in (-1e-6, 0.0, 1e-6):
        p = row.top_p if row.top_p is None or row.top_p in (0.0, 1.0) else row.top_p + nudge
        kept = top_p(scaled, top_k(scaled, row.top_k), p)
        tokens |= {draw(scaled, kept, min(max(u + shift, 0.0), 1 - 2**-53)) for shift in (-1e-6, 0.0, 1e-6)}
    return len(tokens) == 1


sampling_rows = st.builds(
    SamplingRow,
    temperature=st.sampled_from([0.0, 1e-40, 1e-3, 0.3, 1.0, 2.5, 5.0]),
    top_k=st.sampled_from([None, 1, 2, 7, 50, 133, 5000]),
    top_p=st.sampled_from([None, 0.0, 1e-6, 0.1, 0.5, 0.9, 0.999, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 0.5, 1.7]),
    frequency_penalty=st.sampled_from([0.0, -1.0, 1.5]),
    presence_penalty=st.sampled_from([0.0, -0.5, 2.0]),
    seed=st.integers(0, 2**64 - 1),
    position=st.integers(0, 2**33),
    prompt_ids=st.lists(st.integers(0, 140), max_size=9),
    output_ids=st.lists(st.integers(0, 140), max_size=9),
    logit_bias=st.lists(st.tuples(st.integers(0, 140), st.sampled_from([-100.0, -0.5, 0.0, 2.0, 100.0])), max_size=4),
    min_p=st.sampled_from([0.0, 0.0, 1e-6, 0.05, 0.3, 1.0]),
)


@drawn_cases(150)
@given(
    vocab=st.sampled_from([1, 2, 3, 7, 15, 16, 17, 133, 1025, 5000]),
    flatness=st.sampled_from([0.0, 0.01, 1.0, 8.0]),
    ties=st.booleans(),
    masked=st.booleans(),
    row=sampling_rows,
)
def test_kernels_choose_what_the_specification_does(
    vocab: int, flatness: float, ties: bool, masked: bool, row: SamplingRow
) -> None:
    rng = np.random.default_rng(row.seed)
    logits = rng.standard_normal(vocab, dtype=np.float32) * np.float32(flatness)
    if ties:  # many of equal weight: which of them top-k and top-p keep is laid down
        logits = np.rint(logits)
    if masked:
        logits[rng.random(vocab) < 0.5] = -np.inf
    if row.temperature and logits.max() > -np.inf and not far_from_a_boundary(logits, row):
        return
    expected = sample_row(logits, row)
    assert {name: one(shared_kernels(name, 1), logits, row) for name in KERNELS} == dict.fromkeys(KERNELS, expected)


def test_kernels_choose_what_the_specification_does_from_a_whole_vocabulary() -> None:
    every, compared = {name: shared_kernels(name, 2) for name in KERNELS}, 0
    for seed, row in enumerate(
        [
            PLAIN,
            PLAIN._replace(top_k=50, top_p=0.9),
            PLAIN._replace(temperature=3.0, top_p=0.95),
            PLAIN._replace(top_k=2000),
        ]
    ):
        logits = random_logits(seed, 262_144)
        for position in range(2):
            here = row._replace(position=position)
            if far_from_a_boundary(logits, here):
                expected = sample_row(logits, here)
                assert {name: one(ops, logits, here) for name, ops in every.items()} == dict.fromkeys(every, expected)
                compared += 1
    assert compared > 4
