"""Batches of examples of similar length, padded to rectangles. Plain Python, so it can be tested without torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from intaglio.training.encode import Tokens

IGNORED = -100  # the label that carries no loss: torch's cross_entropy skips it


class Batch(NamedTuple):
    """A rectangle of token ids. Both lists are [rows][width].

    labels   at each position the token that must follow it, or IGNORED if that token is not part of an answer
    """

    ids: list[list[int]]
    labels: list[list[int]]


def pad(examples: Sequence[Tokens]) -> Batch:
    """Put examples side by side. Padding on the right needs no mask: attention is causal, and padding has no loss."""
    width = max(len(tokens.ids) for tokens in examples)
    ids = [tokens.ids + [0] * (width - len(tokens.ids)) for tokens in examples]
    labels = [[IGNORED] * width for _ in examples]
    for row, tokens in zip(labels, examples, strict=True):
        for start, stop in tokens.answers:
            row[start - 1 : stop - 1] = tokens.ids[start:stop]
    return Batch(ids, labels)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    return -(-num_examples // batch_size)


def endless_batches(examples: Sequence[Tokens], batch_size: int, rng: random.Random) -> Iterator[list[Tokens]]:
    """Endless batches; each pass has every example once, its batches in a new order.

    Examples of similar length are in the same batch, so that there is little padding. The batch of the longest ones may
    be smaller.
    """
    while True:
        order = sorted(examples, key=lambda tokens: len(tokens.ids) + rng.random() * 8)
        starts = list(range(0, len(order), batch_size))
        rng.shuffle(starts)
        yield from (order[start : start + batch_size] for start in starts)
