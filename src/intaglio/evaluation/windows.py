"""Sliding windows over a text that is longer than the context.

    tokens     t0 t1 t2 t3 t4 t5 t6 t7 t8 t9        context_length 6, stride 3; every window begins with BOS
    window 0   B  t0 t1 t2 t3 t4                    scores t0 ... t5
    window 1            B  t3 t4 t5 t6 t7           scores t6 t7 t8
    window 2                     B  t6 t7 t8        scores t9

Every token is scored once, as in the guide "Perplexity of fixed-length models" of transformers; all but those of the
first window with at least context_length - stride tokens before them. A Gemma was trained on sequences that begin with
BOS and predicts badly without it, so each window has it, as in llama.cpp's perplexity tool, which scores the second
half of disjoint windows instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens start ... stop - 1 of a text are predicted; those from first_scored on are scored here.

    The input is BOS and the tokens start ... stop - 2: as many as are predicted.
    """

    start: int
    stop: int
    first_scored: int

    @property
    def num_scored(self) -> int:
        return self.stop - self.first_scored


def sliding_windows(num_tokens: int, context_length: int, stride: int) -> Iterator[Window]:
    """The windows of a text. 1 <= stride <= context_length; num_tokens >= 1, without BOS."""
    scored = 0
    for start in range(0, num_tokens, stride):
        stop = min(start + context_length, num_tokens)
        yield Window(start, stop, scored)
        scored = stop
        if stop == num_tokens:
            return
