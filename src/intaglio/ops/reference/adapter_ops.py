"""The reference for adapters on a served base: the specification's arithmetic on another backend's weights.

Products with matrices of the base come from that backend, which knows their layout; they are the same with and without
an adapter. The adapter's part, and everything between the products, is plain NumPy as in `ReferenceOps`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from intaglio.ops import Array, Format, Ops, Weight
from intaglio.ops.reference.backend import ReferenceOps

F32 = npt.NDArray[np.float32]


class ReferenceAdapterOps(ReferenceOps):
    """`ReferenceOps` over the weights of another backend."""

    def __init__(self, base: Ops) -> None:
        self._base = base

    @property
    def name(self) -> str:
        return f"reference over {self._base.name}"

    @property
    def layout(self) -> str:
        return self._base.layout

    def weight(self, matrix: Array, fmt: Format) -> Weight:
        return self._base.weight(matrix, fmt)

    def _product(self, x: F32, weight: Weight) -> F32:
        product: F32 = self._base.linears(np.ascontiguousarray(x), [weight])[0]
        return product

    def _rows(self, weight: Weight, ids: npt.NDArray[np.int32]) -> F32:
        rows: F32 = self._base.embedding(weight, ids, 1.0)
        return rows
