"""Losses and divergences from logits, row by row, in nats. A row stays in the cache of one core for all its passes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_MAX_THREADS = 8
_MAX_EXPONENT = 60.0
_THREADED_ROWS = 16  # below this a thread costs more than it saves


class Divergence(NamedTuple):
    """How far the distributions of rows are from the reference's.

    kl         [rows] float64: KL divergence from the reference, over the whole vocabulary
    same_best  [rows] bool: whether both have the same most probable token
    """

    kl: F64
    same_best: NDArray[np.bool_]


def losses(logits: F32, targets: Sequence[int]) -> F64:
    """[rows] float64: the negative log probability of each target. logits [rows, vocabulary]."""
    return _by_row(_loss, logits, targets)


def divergence(reference: F32, other: F32) -> Divergence:
    """Compare two arrays of logits [rows, vocabulary]."""
    return Divergence(_by_row(_kl, reference, other), reference.argmax(axis=1) == other.argmax(axis=1))


def _by_row(function: Callable[[F32, Any], float], rows: F32, others: Sequence[Any] | F32) -> F64:
    """NumPy releases the interpreter lock inside its loops, so threads help."""
    assert len(rows) == len(others), "one target or row for each row"
    if len(rows) < _THREADED_ROWS:
        return np.array([function(*pair) for pair in zip(rows, others, strict=True)], np.float64)
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="scores") as pool:
        return np.array(list(pool.map(function, rows, others)), np.float64)


def _loss(row: F32, target: int) -> float:
    most = row.max()
    return math.log(float(np.exp(row - most).sum(dtype=np.float64))) - float(row[target] - most)


def _kl(reference: F32, other: F32) -> float:
    """With d the difference of the logits, KL = E[d] + log E[exp(-d)] under the reference, whatever constant is taken
    from d. With its mean subtracted nothing cancels, and float32 resolves divergences of 1e-11.
    """
    weights = np.exp(reference - reference.max())
    weights /= weights.sum(dtype=np.float64)
    off = reference - other
    off -= weights @ off
    if off.min() < -_MAX_EXPONENT:
        return _kl_of_far_rows(reference, other)
    kl = float(weights @ off) + math.log1p(float(weights @ np.expm1(-off)))
    return max(kl, 0.0)  # rounding may leave a last bit below zero


def _kl_of_far_rows(reference: F32, other: F32) -> float:
    """The same in float64, for logits so far apart that the exponential would overflow in float32."""
    logs, others = (row.astype(np.float64) - float(row.max()) for row in (reference, other))
    logs -= math.log(np.exp(logs).sum())
    others -= math.log(np.exp(others).sum())
    return max(float(np.exp(logs) @ (logs - others)), 0.0)
