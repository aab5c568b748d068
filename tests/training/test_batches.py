"""Batches hold every example once per pass, and labels only where an answer follows."""

from __future__ import annotations

import random
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from intaglio.training.batches import IGNORED, endless_batches, pad, steps_per_epoch
from intaglio.training.encode import Tokens


def example(length: int, *answers: tuple[int, int]) -> Tokens:
    return Tokens(list(range(100, 100 + length)), answers or ((length - 1, length),), is_chat=True)


def test_a_label_is_the_token_that_must_follow_and_padding_has_none() -> None:
    batch = pad([example(6, (2, 4), (5, 6)), example(3, (1, 3))])
    assert batch.ids == [[100, 101, 102, 103, 104, 105], [100, 101, 102, 0, 0, 0]]
    assert batch.labels == [
        [IGNORED, 102, 103, IGNORED, 105, IGNORED],
        [101, 102, IGNORED, IGNORED, IGNORED, IGNORED],
    ]


@given(st.lists(st.integers(2, 60), min_size=1, max_size=50), st.integers(1, 9), st.integers(0, 99))
def test_each_pass_has_every_example_once_in_a_new_order(lengths: list[int], size: int, seed: int) -> None:
    examples = [example(length) for length in lengths]
    per_epoch = steps_per_epoch(len(examples), size)
    feed = endless_batches(examples, size, random.Random(seed))
    for _ in range(2):
        batches = list(islice(feed, per_epoch))
        assert sorted(id(e) for batch in batches for e in batch) == sorted(map(id, examples))
        assert all(len(batch) <= size for batch in batches)


def test_the_same_seed_gives_the_same_batches() -> None:
    examples = [example(2 + n % 7) for n in range(40)]
    one, two = (list(islice(endless_batches(examples, 4, random.Random(3)), 25)) for _ in range(2))
    assert one == two
    assert one != list(islice(endless_batches(examples, 4, random.Random(4)), 25))


def test_batches_have_little_padding() -> None:
    rng = random.Random(0)
    examples = [example(rng.randint(2, 200)) for _ in range(300)]
    batches = list(islice(endless_batches(examples, 8, random.Random(0)), steps_per_epoch(300, 8)))
    held = sum(len(tokens.ids) for tokens in examples)
    padded = sum(max(len(t.ids) for t in batch) * len(batch) for batch in batches)
    assert padded < 1.2 * held
