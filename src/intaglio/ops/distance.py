"""How far two rows of values are apart, for those who hold one way of computing something to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from intaglio.ops import Array


@dataclass(frozen=True, slots=True)
class RowDistance:
    """The difference of two rows: its length, its largest magnitude and the mean one; and the length of the second."""

    length: float
    largest: float
    mean: float
    size: float


def row_distance(row: Array, other: Array) -> RowDistance:
    """Of two [values] float32 arrays. Not a number where a value is none, so compare with `<=` and expect False."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(row - other)
        return RowDistance(_length(apart), float(apart.max()), float(apart.mean(dtype=np.float64)), _length(other))


def _length(values: Array) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).sum()))
