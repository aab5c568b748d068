"""How far next-token distributions are from a reference's: KL divergence, and where the best token differs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Distance:
    """Row by row, in nats.

    kl      KL divergence of the other distribution from the reference's
    margin  by how much the reference prefers its best token to its second
    lead    by how much the reference prefers its best token to the other's best: 0 where they are the same
    """

    kl: F64
    margin: F64
    lead: F64

    @property
    def mean_kl(self) -> float:
        return float(self.kl.mean())

    @property
    def num_best_changed(self) -> int:
        """Rows in which the two distributions have different best tokens."""
        return int((self.lead > 0).sum())

    @property
    def same_best(self) -> float:
        return 1 - self.num_best_changed / len(self.kl)

    def expected_best_changed(self, deviation: float) -> float:
        """How many rows should have another best token, if rounding changes the difference of a row's two best logits
        by a normal number of this standard deviation. It depends on how many near-ties the text has.
        """
        return sum(math.erfc(margin / deviation / math.sqrt(2)) / 2 for margin in self.margin.tolist())


def distance(expected: F32, logits: F32) -> Distance:
    """The distance between the distributions of two arrays of logits [rows, vocab].

    With d the difference of the logits, KL = E[d] + log E[exp(-d)] under the reference, also if a constant is taken
    from d. With its mean subtracted there is no cancellation, and float32 resolves divergences of 1e-11.
    """
    found = [_row(reference, other) for reference, other in zip(expected, logits, strict=True)]
    return Distance(*np.array(found, np.float64).T)


def _row(reference: F32, other: F32) -> tuple[float, float, float]:
    best = int(reference.argmax())
    weights = np.exp(reference - reference[best])
    weights /= weights.sum()
    off = reference - other
    off -= weights @ off
    second = max(reference[:best].max(initial=-np.inf), reference[best + 1 :].max(initial=-np.inf))
    kl = float(weights @ off) + math.log1p(float(weights @ np.expm1(-off)))
    return kl, float(reference[best] - second), float(reference[best] - reference[other.argmax()])
