"""Choosing one token from one row of logits: the specification of `Ops.sample`.

The order of the steps is that of Hugging Face and vLLM: bias, penalties, temperature, min-p, top-k, top-p, draw. The
random number comes from Philox4x32-10, a counter-based generator: the key is the request's seed, the counter the
token's position, so a draw depends on these two only. Source: Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from intaglio.ops import SamplingRow

F32 = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]

_MASK = 0xFFFFFFFF
_NUCLEUS_GUESS = 1024  # try top-p on this many best tokens before sorting the whole vocabulary


def sample_row(logits: F32, row: SamplingRow) -> int:
    """The token id chosen for logits [vocab]; -1 if the best logit is not finite. The logits are not changed."""
    logits = adjusted(logits, row)
    if not np.isfinite(logits.max()):
        return -1
    temperature = np.float32(row.temperature)  # a tiny value rounds to 0
    if temperature == 0 or row.top_k == 1 or row.top_p == 0:
        return int(logits.argmax())
    # Subtracting the maximum keeps the distribution: the best becomes 0, the others may become -inf but never inf.
    with np.errstate(over="ignore"):
        scaled = (logits - logits.max()) / temperature
    kept = top_k(logits, row.top_k)  # before the division, which may round two logits to one value
    kept = top_p(scaled, kept, row.top_p)
    return draw(scaled, kept, uniform(row.seed, row.position))


def adjusted(logits: F32, row: SamplingRow) -> F32:
    """The logits with bias and penalties, and -inf for tokens that min-p drops; a copy if anything changes."""
    return without_improbable(penalized(logits, row), row)


def without_improbable(logits: F32, row: SamplingRow) -> F32:
    """The logits, with -inf for tokens whose probability is below `min_p` times that of the best: their logit is below
    best + temperature * ln(min_p), so that no exponential is rounded to decide it. A copy if min-p is on.
    """
    if not drops_improbable(row):
        return logits
    best = float(logits.max())
    if not math.isfinite(best):
        return logits
    bound = best + float(np.float32(row.temperature)) * math.log(row.min_p)
    least = np.float32(bound)
    if float(least) < bound:  # the least float32 that is not below it, so that whole rows need no float64
        least = np.nextafter(least, np.float32(np.inf))
    return np.where(logits >= least, logits, np.float32(-np.inf))


def drops_improbable(row: SamplingRow) -> bool:
    """Whether min-p can change the row's token: never a greedy one's."""
    return row.min_p > 0 and np.float32(row.temperature) != 0


def penalized(logits: F32, row: SamplingRow) -> F32:
    """The logits with bias and penalties; a copy if anything changes. The repetition penalty applies once per distinct
    token of prompt and output, frequency and presence to the output alone.
    """
    if not changes_logits(row):
        return logits
    penalty = np.float32(row.repetition_penalty)  # a value that rounds to 0 or 1 is off
    repeats = penalty not in (0.0, 1.0)
    logits = logits.astype(np.float32, copy=True)
    for token, bias in row.logit_bias:
        if token < logits.shape[0]:
            logits[token] += np.float32(bias)
    if repeats:
        seen = np.union1d(_ids(row.prompt_ids), _ids(row.output_ids))
        seen = seen[seen < logits.shape[0]]
        with np.errstate(over="ignore"):  # a tiny penalty may make an infinity, which ends the request
            logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    tokens, counts = np.unique(_ids(row.output_ids), return_counts=True)
    inside = tokens < logits.shape[0]
    tokens, counts = tokens[inside], counts[inside]
    logits[tokens] -= np.float32(row.frequency_penalty) * counts.astype(np.float32) + np.float32(row.presence_penalty)
    return logits


def changes_logits(row: SamplingRow) -> bool:
    """Whether the row has a bias or a penalty at all."""
    return (
        row.repetition_penalty not in (0.0, 1.0)
        or row.frequency_penalty != 0
        or row.presence_penalty != 0
        or bool(row.logit_bias)
    )


def top_k(logits: F32, k: int | None) -> Int:
    """Ids, ascending, of the k best logits and of all that tie with the k-th."""
    if k is None or k >= logits.shape[0]:
        return np.arange(logits.shape[0])
    kth_best = np.partition(logits, -k)[-k]
    return np.flatnonzero(logits >= kth_best)


def top_p(scaled: F32, kept: Int, p: float | None) -> Int:
    """The fewest of the best kept ids whose share of the kept probability reaches p. Ascending; never empty."""
    if p is None or p >= 1:
        return kept
    values = scaled[kept]
    weights = np.exp(values, dtype=np.float32)
    wanted = p * weights.sum(dtype=np.float64)
    if kept.shape[0] > _NUCLEUS_GUESS:
        candidates = np.flatnonzero(values >= np.partition(values, -_NUCLEUS_GUESS)[-_NUCLEUS_GUESS])
        if weights[candidates].sum(dtype=np.float64) < wanted:
            candidates = np.arange(kept.shape[0])
    else:
        candidates = np.arange(kept.shape[0])
    best_first = candidates[np.argsort(-values[candidates], kind="stable")]  # ties: the lower id first
    reached = np.cumsum(weights[best_first], dtype=np.float64)
    count = min(int(np.searchsorted(reached, wanted)) + 1, best_first.shape[0])
    return np.sort(kept[best_first[:count]])


def draw(scaled: F32, kept: Int, u: float) -> int:
    """The id at which the running sum of probabilities, in the order of ids, passes u in [0, 1)."""
    reached = np.cumsum(np.exp(scaled[kept], dtype=np.float32), dtype=np.float64)
    index = int(np.searchsorted(reached, u * reached[-1], side="right"))
    return int(kept[min(index, kept.shape[0] - 1)])


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits, a function of (seed, position) alone."""
    counter = (position & _MASK, position >> 32 & _MASK, 0, 0)
    first, second, _, _ = philox4x32(counter, (seed & _MASK, seed >> 32 & _MASK))
    return ((first << 32 | second) >> 11) * 2.0**-53


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Ten rounds of Philox: four 32-bit words from a 128-bit counter and a 64-bit key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (product1 >> 32) ^ c1 ^ k0,
            product1 & _MASK,
            (product0 >> 32) ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0, k1 = k0 + 0x9E3779B9 & _MASK, k1 + 0xBB67AE85 & _MASK
    return c0, c1, c2, c3


def _ids(ids: Sequence[int]) -> Int:
    return np.asarray(ids, dtype=np.int64)
