"""Log-probabilities of tokens, and the mask of a grammar, for backends whose logits are NumPy arrays.

log softmax(x)[i] = x[i] - max - log sum exp(x - max). The exponentials are float32, their sum and all after it float64:
an error of about 1e-7, that of the logits themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from intaglio.ops import LogprobsQuery, LogprobsRow

F32 = npt.NDArray[np.float32]

_CHUNK = 256  # ids per chunk in the search for the best


@dataclass(frozen=True, slots=True)
class Distribution:
    """A row's logits [vocab], and the number to subtract from each to get its log-probability."""

    logits: F32
    log_total: float

    def logprob(self, token: int) -> float:
        return float(self.logits[token]) - self.log_total


class HostDistributions:
    """`Ops.distributions`, `logprobs` and `mask_tokens` for every backend whose logits are NumPy arrays."""

    def distributions(self, logits: F32, rows: Sequence[int], vocab_size: int) -> list[Distribution]:
        return [_distribution(logits[row, :vocab_size].copy()) for row in rows]

    def logprobs(self, distributions: Sequence[Distribution], queries: Sequence[LogprobsQuery]) -> list[LogprobsRow]:
        return [_logprobs_row(one, query) for one, query in zip(distributions, queries, strict=True)]

    def mask_tokens(self, logits: F32, row: int, allowed: bytes) -> None:
        values = logits[row]
        bits = np.unpackbits(np.frombuffer(allowed, np.uint8), bitorder="little")[: values.shape[0]]
        np.copyto(values[: bits.shape[0]], np.float32(-np.inf), where=bits == 0)
        values[bits.shape[0] :] = -np.inf


def best_tokens(logits: F32, count: int) -> list[int]:
    """Ids of the `count` best finite logits, best first, of equals the lower id first."""
    if count == 0:
        return []
    # The best of each chunk bounds the candidates, so that few have to be sorted.
    whole = logits.shape[0] - logits.shape[0] % _CHUNK
    tops = logits[:whole].reshape(-1, _CHUNK).max(axis=1)
    least = np.partition(tops, -count)[-count] if tops.shape[0] >= count else np.float32(-np.inf)
    candidates = np.flatnonzero((logits >= least) & np.isfinite(logits))
    order = np.argsort(-logits[candidates], kind="stable")[:count]
    return [int(token) for token in candidates[order]]


def _logprobs_row(found: Distribution, query: LogprobsQuery) -> LogprobsRow:
    best = [(token, found.logprob(token)) for token in best_tokens(found.logits, query.num_best)]
    rank = 1 + int(np.count_nonzero(found.logits > found.logits[query.chosen]))
    return LogprobsRow(found.logprob(query.chosen), rank, best)


def _distribution(logits: F32) -> Distribution:
    highest = logits.max()
    if not np.isfinite(highest):  # no token is sampled from such a row
        return Distribution(logits, math.nan)
    total = np.exp(logits - highest).sum(dtype=np.float64)
    return Distribution(logits, float(highest) + math.log(total))
