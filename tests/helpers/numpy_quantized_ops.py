"""The arithmetic of quantized products in NumPy, to measure its rounding without any kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from intaglio.ops import Array, AttentionKind, AttentionRow, Format, KVGroup, LoraSegment, QuantizedMatrix
from intaglio.ops.reference import ReferenceOps
from intaglio.ops.reference.attention import store
from intaglio.ops.reference.weight import MatrixWeight, dequantized
from tests.helpers.forward import F32
from tests.ops.quantized import rows_of


class RoundingOps(ReferenceOps):
    """The reference backend with the rounding of the kernels in products with quantized matrices.

    It is independent of the kernels: its distance from float32 is the cost of the arithmetic, not a fault of a kernel.
    Each matrix is multiplied with all rows in one product, and all queries with their keys, which is several times as
    fast as the reference's product for each row.

    activations  rounds float32 rows [rows, in] before they are multiplied
    weights      the values [out, in] of a quantized matrix that are multiplied
    """

    def __init__(
        self,
        activations: Callable[[F32], Array] = lambda x: x,
        weights: Callable[[QuantizedMatrix], Array] = dequantized,
    ) -> None:
        self._activations, self._weights = activations, weights

    def weight(self, matrix: Array, fmt: Format) -> MatrixWeight:
        return _RoundedWeight(np.asarray(matrix, np.float32))

    def quantized_weight(self, matrix: QuantizedMatrix) -> MatrixWeight:
        values = np.empty(matrix.shape, np.float32)
        for start in range(0, len(values), 4096):
            some = slice(start, start + 4096)
            values[some] = self._weights(rows_of(matrix, some))
        return _RoundedWeight(values, matrix, self._activations)

    def self_attention(
        self,
        x: Array,
        qkv: Sequence[MatrixWeight],
        kind: AttentionKind,
        cache: KVGroup,
        layer: int,
        plan: Sequence[AttentionRow],
        adapters: Sequence[LoraSegment] | None = None,
        projection: int = 0,
    ) -> Array:
        """For one sequence and heads that share one set of keys, without a soft cap, as in Gemma 3 270M."""
        (row,) = plan
        assert kind.num_kv_heads == 1
        assert kind.norms is not None
        assert kind.softcap is None
        q, k, v = (out.reshape(len(x), -1, kind.head_dim) for out in self.linears(x, qkv, adapters, projection))
        positions = np.arange(row.context - len(x), row.context)
        q = self.rope(self.rms_norm(q, kind.norms.q, kind.norms.eps), positions, kind.rope.theta, kind.rope.factor)
        k = self.rope(self.rms_norm(k, kind.norms.k, kind.norms.eps), positions, kind.rope.theta, kind.rope.factor)
        store(cache, layer, row, k, v)
        held = row.context - row.first_key
        keys, values = (
            kept[layer][list(row.block_table)].reshape(-1, kind.head_dim)[:held] for kept in (cache.keys, cache.values)
        )
        distance = positions[:, None] - np.arange(row.first_key, row.context)
        hidden = (distance < 0) | (distance >= (kind.window or row.context))
        scores = q.transpose(1, 0, 2) @ keys.T * np.float32(kind.scale)  # [heads, tokens, keys]
        scores[:, hidden] = -np.inf
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        return np.ascontiguousarray((weights @ values).transpose(1, 0, 2)).reshape(len(x), -1)


class _RoundedWeight(MatrixWeight):
    """A weight whose product takes all rows at once, after rounding them."""

    def __init__(
        self,
        values: F32,
        matrix: QuantizedMatrix | None = None,
        activations: Callable[[F32], Array] = lambda x: x,
    ) -> None:
        super().__init__(values, "f32")
        self._values, self._matrix, self._activations = values, matrix, activations

    def rows(self, ids: Array) -> F32:
        return super().rows(ids) if self._matrix is None else dequantized(rows_of(self._matrix, ids))

    def project(self, x: F32) -> F32:
        return np.asarray(np.asarray(self._activations(x), np.float32) @ self._values.T)
