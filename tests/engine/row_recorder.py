"""A backend that writes down the logits every sequence's tokens were chosen from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from intaglio.ops import Array, Ops, SamplingRow

SampledToken = tuple[int, int]  # a request's seed, which is its name here, and the number of tokens it had


class RecordingOps:
    """Another backend; `logits` holds the SHA-256 of the row that each token was chosen from."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops
        self.logits: dict[SampledToken, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def sample(self, logits: Array, rows: Sequence[SamplingRow], vocab_size: int) -> list[int]:
        for values, row in zip(logits, rows, strict=True):
            choice = (row.seed, row.position)
            assert choice not in self.logits, "a token is chosen once, whatever is computed again"
            self.logits[choice] = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
        return self._ops.sample(logits, rows, vocab_size)
