"""How to sample from a row of logits, and what to report about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class SamplingRow(NamedTuple):
    """How to choose the next token of one row; fields and their order as in `request.SamplingParams`.

    prompt_ids, output_ids  the tokens so far, for the penalties; may be empty when no penalty is set
    position                the number of output tokens so far: with seed the key of the random draw
    logit_bias              (id, what is added to its logit)
    min_p                   0 is off
    """

    temperature: float
    top_k: int | None
    top_p: float | None
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: int
    position: int
    prompt_ids: Sequence[int]
    output_ids: Sequence[int]
    logit_bias: Sequence[tuple[int, float]] = ()
    min_p: float = 0.0


@dataclass(frozen=True, slots=True)
class LogprobsQuery:
    """What to report about one row: the log-probability of the token `chosen`, and the `num_best` best tokens."""

    chosen: int
    num_best: int


@dataclass(frozen=True, slots=True)
class LogprobsRow:
    """Natural logarithms; best [(id, logprob)], best first, of equals the lower id first. rank: 1 + how many tokens
    are more probable than the chosen one.
    """

    chosen: float
    rank: int
    best: list[tuple[int, float]]
