"""How far two rows of values are apart, for those who hold one way of computing something to another."""

from __future__ import annotations

import math
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
        return RowDistance(length(apart), float(apart.max()), float(apart.mean(dtype=np.float64)), length(other))


def length(values: Array) -> float:
    """Of all values together. Takes no memory, of which the logits of a few tokens would need tens of megabytes."""
    flat = values.ravel()
    return math.sqrt(np.einsum("i,i->", flat, flat, dtype=np.float64))
