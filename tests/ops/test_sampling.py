"""Choosing a token: each step alone, their order, the edges, and the random numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from intaglio.ops import Ops, SamplingRow
from intaglio.ops.sampling import draw, penalized, philox4x32, sample_row, top_k, top_p, uniform, without_improbable
from tests.helpers.drawn_cases import drawn_cases

F32 = NDArray[np.float32]

PLAIN = SamplingRow(
    temperature=1.0,
    top_k=None,
    top_p=None,
    repetition_penalty=1.0,
    frequency_penalty=0.0,
    presence_penalty=0.0,
    seed=7,
    position=0,
    prompt_ids=(),
    output_ids=(),
)


def f32(*values: float) -> F32:
    return np.array(values, np.float32)


def log_of(*probabilities: float) -> F32:
    return np.log(np.array(probabilities)).astype(np.float32)


def random_logits(seed: int, vocab: int = 133) -> F32:
    return np.random.default_rng(seed).standard_normal(vocab, dtype=np.float32) * np.float32(3)


def one(ops: Ops, logits: F32, row: SamplingRow) -> int:
    return ops.sample(logits[None].copy(), [row], logits.shape[0])[0]


def chosen(ops: Ops, logits: F32, row: SamplingRow, draws: int = 200) -> set[int]:
    """Every token that comes up in so many positions of one random stream."""
    rows = [row._replace(position=position) for position in range(draws)]
    return set(ops.sample(np.repeat(logits[None], draws, axis=0), rows, logits.shape[0]))


# ------------------------------------------------------------------------------------------------------------ greedy


@pytest.mark.parametrize(
    "row",
    [
        PLAIN._replace(temperature=0.0),
        PLAIN._replace(top_k=1),
        PLAIN._replace(top_p=0.0),
        PLAIN._replace(top_p=1e-6),
        PLAIN._replace(temperature=1e-6),
        PLAIN._replace(temperature=1e-40),  # the others overflow to -inf on the way
        PLAIN._replace(temperature=1e-60),  # 0 in float32
        PLAIN._replace(temperature=5.0, top_k=1, top_p=1.0),
    ],
    ids=["temperature 0", "k 1", "p 0", "p tiny", "t tiny", "t denormal", "t below float32", "k 1 at t 5"],
)
def test_settings_that_leave_one_token_choose_the_best(ops: Ops, row: SamplingRow) -> None:
    for seed in range(20):
        logits = random_logits(seed)
        assert chosen(ops, logits, row, draws=5) == {int(logits.argmax())}


def test_greedy_chooses_the_lowest_id_of_a_tie(ops: Ops) -> None:
    assert one(ops, f32(1, 5, 5, 0), PLAIN._replace(temperature=0.0)) == 1


def test_rows_without_a_finite_best_give_minus_one(ops: Ops) -> None:
    for temperature in (0.0, 1.0):
        row = PLAIN._replace(temperature=temperature)
        assert one(ops, f32(-np.inf, -np.inf, -np.inf), row) == -1
        assert one(ops, f32(0, np.nan, 1), row) == -1
        assert one(ops, f32(0, np.inf, 1), row) == -1
        assert one(ops, f32(np.nan, np.nan, np.nan), row._replace(repetition_penalty=1.3, prompt_ids=(1,))) == -1


def test_masked_tokens_are_never_drawn(ops: Ops) -> None:
    logits = f32(-np.inf, 0, -np.inf, 0, -np.inf)
    for row in (PLAIN, PLAIN._replace(top_k=4), PLAIN._replace(top_p=0.99), PLAIN._replace(temperature=5.0)):
        assert chosen(ops, logits, row) == {1, 3}


def test_a_single_finite_token_is_chosen(ops: Ops) -> None:
    assert chosen(ops, f32(-np.inf, -3, -np.inf), PLAIN._replace(temperature=5.0, top_k=3, top_p=0.5)) == {1}


# -------------------------------------------------------------------------------------------------------------- bias


def test_bias_is_added_before_the_penalties_and_counts_for_greedy_too(ops: Ops) -> None:
    logits = f32(3, 1, 0, -1)
    greedy = PLAIN._replace(temperature=0.0)
    assert one(ops, logits, greedy._replace(logit_bias=((2, 3.5),))) == 2
    assert one(ops, logits, greedy._replace(logit_bias=((0, -100.0), (1, -100.0)))) == 2
    row = PLAIN._replace(logit_bias=((0, -5.0), (9, 1.0)), repetition_penalty=2.0, prompt_ids=(0,))
    assert penalized(logits, row).tolist() == [-4, 1, 0, -1], "(3 - 5) * 2; an id past the logits is left alone"
    assert logits.tolist() == [3, 1, 0, -1]


def test_a_bias_does_not_unmask_a_token(ops: Ops) -> None:
    logits = f32(-np.inf, 0, -np.inf, -1)
    row = PLAIN._replace(temperature=5.0, logit_bias=((0, 100.0), (2, 100.0), (3, 1.0)))
    assert chosen(ops, logits, row) == {1, 3}


# --------------------------------------------------------------------------------------------------------- penalties


def test_penalties_are_exact() -> None:
    row = PLAIN._replace(
        repetition_penalty=2.0,
        frequency_penalty=0.5,
        presence_penalty=0.25,
        prompt_ids=(0, 1, 1, 1, 0),
        output_ids=(2, 1, 2, 2),
    )
    logits = f32(4, -4, 8, -8, 0)
    # 0: in the prompt. 1: in both, once in the output. 2: three times in the output. 3 and 4: nowhere.
    assert penalized(logits, row).tolist() == [2, -8 - 0.5 - 0.25, 4 - 1.5 - 0.25, -8, 0]
    assert logits.tolist() == [4, -4, 8, -8, 0]


def test_repetition_counts_once_however_often_a_token_stands_in_the_prompt() -> None:
    row = PLAIN._replace(repetition_penalty=2.0, prompt_ids=(1,) * 133, output_ids=(1, 1))
    assert penalized(f32(4, 4), row).tolist() == [4, 2]


def test_frequency_and_presence_do_not_look_at_the_prompt() -> None:
    row = PLAIN._replace(frequency_penalty=1.0, presence_penalty=1.0, prompt_ids=(0, 0, 1))
    assert penalized(f32(4, 4), row).tolist() == [4, 4]


def test_a_repetition_penalty_that_rounds_to_zero_is_off() -> None:
    row = PLAIN._replace(temperature=0.0, repetition_penalty=1e-50, prompt_ids=[0, 1, 2])
    assert sample_row(f32(3, 1, -math.inf), row) == 0


def test_negative_penalties_favour_repetition() -> None:
    row = PLAIN._replace(frequency_penalty=-1.0, presence_penalty=-0.5, output_ids=(1, 1))
    assert penalized(f32(0, 0), row).tolist() == [0, 2.5]
    halved = PLAIN._replace(repetition_penalty=0.5, prompt_ids=(0, 1))
    assert penalized(f32(2, -2), halved).tolist() == [4, -1]


@pytest.mark.parametrize("off", [0.0, 1.0])
def test_repetition_penalty_of_zero_and_one_is_off(off: float) -> None:
    logits = random_logits(1)
    assert np.array_equal(penalized(logits, PLAIN._replace(repetition_penalty=off, prompt_ids=(1, 2))), logits)


def test_ids_beyond_the_vocabulary_are_ignored() -> None:
    row = PLAIN._replace(
        repetition_penalty=2.0, frequency_penalty=1.0, prompt_ids=(99,), output_ids=(1, 99)
    )  # padding rows of the embedding have ids too
    assert penalized(f32(4, 4), row).tolist() == [4, 1]


def test_penalties_come_before_temperature(ops: Ops) -> None:
    # Presence takes 2 off a lead of 1. Taken off after the division by 0.01, 98 of the lead would be left.
    row = PLAIN._replace(temperature=0.01, presence_penalty=2.0, output_ids=(0,))
    assert chosen(ops, f32(1, 0), row, 50) == {1}


# -------------------------------------------------------------------------------------------------- top-k and top-p


def test_top_k_keeps_all_that_tie_with_the_last() -> None:
    assert top_k(f32(1, 3, 2, 2, 0, 2), 2).tolist() == [1, 2, 3, 5]
    assert top_k(f32(1, 3, 2, 2, 0, 2), 1).tolist() == [1]


def test_all_that_tie_with_the_last_of_the_top_k_are_drawn(ops: Ops) -> None:
    assert chosen(ops, f32(1, 3, 2, 2, 0, 2), PLAIN._replace(top_k=2)) == {1, 2, 3, 5}


def test_top_k_at_or_over_the_vocabulary_keeps_all() -> None:
    for k in (None, 3, 4, 2**31 - 1):
        assert top_k(f32(1, 2, 3), k).tolist() == [0, 1, 2]


def test_top_p_keeps_the_token_that_crosses_p() -> None:
    logits = log_of(0.1, 0.4, 0.2, 0.3)
    every = np.arange(4)
    assert top_p(logits, every, 0.39).tolist() == [1]
    assert top_p(logits, every, 0.41).tolist() == [1, 3]
    assert top_p(logits, every, 0.69).tolist() == [1, 3]
    assert top_p(logits, every, 0.71).tolist() == [1, 2, 3]
    assert top_p(logits, every, 0.91).tolist() == [0, 1, 2, 3]


def test_top_p_of_zero_keeps_one_and_of_one_or_more_all() -> None:
    logits, every = log_of(0.1, 0.4, 0.2, 0.3), np.arange(4)
    assert top_p(logits, every, 0.0).tolist() == [1]
    for p in (None, 1.0, 1.5, 2.0):
        assert top_p(logits, every, p).tolist() == [0, 1, 2, 3]


def test_top_p_counts_within_the_top_k(ops: Ops) -> None:
    # Of the kept 0.4 and 0.3 the first is 57 %: enough for 0.5. Of everything it would not be.
    logits = log_of(0.1, 0.4, 0.2, 0.3)
    assert top_p(logits, top_k(logits, 2), 0.5).tolist() == [1]
    assert top_p(logits, np.arange(4), 0.5).tolist() == [1, 3]
    assert chosen(ops, logits, PLAIN._replace(top_k=2, top_p=0.5)) == {1}


def test_top_p_comes_after_temperature(ops: Ops) -> None:
    logits = log_of(0.4, 0.3, 0.2, 0.1)
    assert chosen(ops, logits, PLAIN._replace(top_p=0.65)) == {0, 1}
    assert chosen(ops, logits, PLAIN._replace(top_p=0.65, temperature=5.0)) == {0, 1, 2}
    assert chosen(ops, logits, PLAIN._replace(top_p=0.65, temperature=0.2)) == {0}


@drawn_cases(60)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocab=st.sampled_from([1, 2, 3, 7, 133, 1025, 3000]),
    flatness=st.sampled_from([0.0, 0.01, 1.0, 8.0]),
    p=st.floats(0.001, 0.999),
    k=st.one_of(st.none(), st.integers(1, 3000)),
)
def test_top_p_is_the_smallest_set_that_reaches_p(
    seed: int, vocab: int, flatness: float, p: float, k: int | None
) -> None:
    logits = np.random.default_rng(seed).standard_normal(vocab, dtype=np.float32) * np.float32(flatness)
    scaled = logits - logits.max()
    within = top_k(scaled, k)
    kept = top_p(scaled, within, p)
    weights = np.exp(scaled[within].astype(np.float64))
    share = dict(zip(within.tolist(), weights / weights.sum(), strict=True))
    total = math.fsum(share[i] for i in kept.tolist())
    weakest = min(kept.tolist(), key=lambda i: share[i])
    assert len(kept) >= 1
    assert total >= p - 1e-5
    assert len(kept) == 1 or total - share[weakest] <= p + 1e-5
    assert all(share[i] <= share[weakest] * (1 + 1e-6) for i in set(within.tolist()) - set(kept.tolist()))


# ------------------------------------------------------------------------------------------------------------- min-p


def test_min_p_keeps_what_has_its_share_of_the_bests_probability(ops: Ops) -> None:
    logits = log_of(0.1, 0.4, 0.2, 0.3)
    assert chosen(ops, logits, PLAIN._replace(min_p=0.76)) == {1}
    assert chosen(ops, logits, PLAIN._replace(min_p=0.74)) == {1, 3}
    assert chosen(ops, logits, PLAIN._replace(min_p=0.24)) == {0, 1, 2, 3}


def test_min_p_of_one_keeps_all_that_tie_with_the_best(ops: Ops) -> None:
    assert chosen(ops, f32(1, 3, 3, 2, 3), PLAIN._replace(min_p=1.0)) == {1, 2, 4}


def test_min_p_comes_after_temperature_and_bias_and_before_top_p(ops: Ops) -> None:
    logits = log_of(0.4, 0.3, 0.2, 0.1)
    assert chosen(ops, logits, PLAIN._replace(min_p=0.6)) == {0, 1}
    assert chosen(ops, logits, PLAIN._replace(min_p=0.6, temperature=5.0)) == {0, 1, 2, 3}
    assert chosen(ops, logits, PLAIN._replace(min_p=0.6, logit_bias=((3, 9.0),))) == {3}
    # Of the kept 0.4 and 0.3 the first is 57 %, of everything 40 %.
    assert chosen(ops, logits, PLAIN._replace(min_p=0.6, top_p=0.5)) == {0}


def test_min_p_changes_nothing_for_the_best_token_and_a_masked_one(ops: Ops) -> None:
    for seed in range(10):
        logits = random_logits(seed)
        assert one(ops, logits, PLAIN._replace(temperature=0.0, min_p=0.9)) == int(logits.argmax())
    assert chosen(ops, f32(-math.inf, 0, 0, -math.inf), PLAIN._replace(min_p=1e-9)) == {1, 2}
    assert one(ops, f32(-math.inf, -math.inf), PLAIN._replace(min_p=0.5)) == -1


@drawn_cases(60)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocab=st.sampled_from([1, 2, 3, 7, 133, 1025]),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 4.0]),
    share=st.floats(1e-6, 1.0),
)
def test_min_p_keeps_exactly_the_tokens_of_the_definition(
    seed: int, vocab: int, temperature: float, share: float
) -> None:
    logits = random_logits(seed, vocab)
    kept = np.isfinite(without_improbable(logits, PLAIN._replace(temperature=temperature, min_p=share)))
    weights = np.exp(logits.astype(np.float64) / float(np.float32(temperature)))
    ratio = weights / weights.sum() / (weights / weights.sum()).max()
    clear = np.abs(ratio - share) > 1e-9
    assert (kept == (ratio >= share))[clear].all()


# ------------------------------------------------------------------------------------------------------ random numbers


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "digits of pi"],
)
def test_philox_gives_the_published_values(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    assert philox4x32(counter, key) == expected


def test_uniform_numbers_fill_zero_to_one_evenly() -> None:
    numbers = np.array([uniform(seed, position) for seed in range(40) for position in range(100)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
    chi_square = float(np.square(counts - 200).sum() / 200)
    assert 7.6 < chi_square < 38.6  # 19 degrees of freedom: 1 % on the low, 0.5 % on the high side


def test_seed_and_position_each_change_the_number() -> None:
    seeds = [0, 1, 2, 2**31, 2**32, 2**32 + 1, 2**63, 2**64 - 1]
    positions = [0, 1, 2, 2**32]
    assert len({uniform(seed, position) for seed in seeds for position in positions}) == len(seeds) * len(positions)


def test_draw_covers_the_kept_tokens_from_the_lowest_id_up() -> None:
    scaled, kept = log_of(0.25, 0.25, 0.25, 0.25), np.array([0, 2, 3])
    bounds = [(0.0, 0), (0.3, 0), (0.35, 2), (0.66, 2), (0.67, 3), (1 - 2**-53, 3)]
    assert [draw(scaled, kept, u) for u, _ in bounds] == [token for _, token in bounds]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (PLAIN, (0.5, 0.25, 0.15, 0.1)),
        (PLAIN._replace(temperature=0.5), (0.25, 0.0625, 0.0225, 0.01)),
        (PLAIN._replace(top_k=3), (0.5, 0.25, 0.15, 0)),
        (PLAIN._replace(top_p=0.7), (0.5, 0.25, 0, 0)),
    ],
    ids=["plain", "temperature", "top_k", "top_p"],
)
def test_draws_follow_the_probabilities(ops: Ops, row: SamplingRow, expected: tuple[float, ...]) -> None:
    draws, logits = 1000, log_of(0.5, 0.25, 0.15, 0.1)
    rows = [row._replace(position=i) for i in range(draws)]
    counts = np.bincount(ops.sample(np.repeat(logits[None], draws, axis=0), rows, 4), minlength=4)
    wanted = np.array(expected) / sum(expected) * draws
    possible = wanted > 0
    assert counts[~possible].sum() == 0
    chi_square = float((np.square(counts - wanted)[possible] / wanted[possible]).sum())
    assert chi_square < 12.8  # 0.5 % with the most, 3, degrees of freedom; the seed is fixed


# ---------------------------------------------------------------------------------------------------------- in a batch


def test_a_rows_token_is_the_same_in_any_batch(ops: Ops) -> None:
    rows = [
        PLAIN,
        PLAIN._replace(top_k=7, seed=1),
        PLAIN._replace(top_p=0.8, temperature=2.0, seed=2**40, position=133),
        PLAIN._replace(repetition_penalty=1.3, prompt_ids=(1, 2, 3), output_ids=(5, 5)),
        PLAIN._replace(temperature=0.0, presence_penalty=1.0, output_ids=(9,)),
    ]
    logits = np.stack([random_logits(seed) for seed in range(len(rows))])
    alone = [one(ops, values, row) for values, row in zip(logits, rows, strict=True)]
    assert ops.sample(logits.copy(), rows, 133) == alone
    assert ops.sample(logits[::-1].copy(), rows[::-1], 133) == alone[::-1]
    assert ops.sample(np.repeat(logits[2:3], 33, axis=0), [rows[2]] * 33, 133) == [alone[2]] * 33


def test_same_seed_and_position_give_the_same_token_and_another_seed_other_tokens(ops: Ops) -> None:
    logits = random_logits(1, 3000) / np.float32(3)
    stream = [one(ops, logits, PLAIN._replace(position=i)) for i in range(20)]
    assert stream == [one(ops, logits, PLAIN._replace(position=i)) for i in range(20)]
    assert stream != [one(ops, logits, PLAIN._replace(position=i, seed=8)) for i in range(20)]
    assert len(set(stream)) > 10


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_padding_columns_are_never_chosen(ops: Ops, penalty: float) -> None:
    logits = np.full((100, 10), 100, np.float32)
    logits[:, :7] = random_logits(1, 7)
    row = PLAIN._replace(temperature=5.0, presence_penalty=penalty, output_ids=(3, 8))
    for plan in (row, row._replace(temperature=0.0), row._replace(top_k=5), row._replace(top_p=0.9)):
        tokens = set(ops.sample(logits.copy(), [plan._replace(position=i) for i in range(100)], 7))
        assert max(tokens) < 7
