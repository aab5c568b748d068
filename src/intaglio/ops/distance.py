"""The distance of two rows of values, for comparisons of two ways of computing the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from intaglio.ops import Array


@dataclass(frozen=True, slots=True)
class RowDistance:
    """The difference of two rows: length, largest and mean magnitude. size: the length of the second row."""

    length: float
    largest: float
    mean: float
    size: float


def row_distance(row: Array, other: Array) -> RowDistance:
    """The distance of two [values] float32 arrays. NaN if a value is NaN, so that `distance <= bound` is False then."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(row - other)
        return RowDistance(length(apart), float(apart.max()), float(apart.mean(dtype=np.float64)), length(other))


def length(values: Array) -> float:
    """The norm of all values, without temporary arrays: for logits they would have tens of megabytes."""
    flat = values.ravel()
    return math.sqrt(np.einsum("i,i->", flat, flat, dtype=np.float64))
