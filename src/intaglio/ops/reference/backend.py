"""The specification: every operation in float32 NumPy, written to be checked by hand.

A row's result does not depend on the other rows, nor on how a prompt is split: each row has its own product with a
matrix, and each query with its keys (`weight.products`, `attention`). NumPy's BLAS computes them, so the last bits
depend on its version, its threads and this machine. Tests compare faster backends with this one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from intaglio.ops import (
    AdapterProjection,
    Array,
    AttentionKind,
    AttentionRow,
    Format,
    KVFormat,
    KVGroup,
    LoraPair,
    LoraSegment,
    QuantizedFormat,
    QuantizedMatrix,
    SamplingRow,
)
from intaglio.ops.cached_values import copy_block, kv_group
from intaglio.ops.dora import dora_gain, is_table_pair
from intaglio.ops.logprobs import HostDistributions
from intaglio.ops.reference.adapter import ReferenceAdapter, adapter_arrays, adapter_from_arrays, with_pair
from intaglio.ops.reference.attention import paged_attention, rotated, softcapped, store
from intaglio.ops.reference.weight import MatrixWeight, dequantized, products
from intaglio.ops.sampling import sample_row

F32 = npt.NDArray[np.float32]


class ReferenceOps(HostDistributions):
    """The NumPy backend of `Ops`; the docstrings there are its specification."""

    @property
    def name(self) -> str:
        return "reference"

    @property
    def layout(self) -> str:
        return "float32"

    def integers(self, values: Sequence[int]) -> Array:
        return np.asarray(values, dtype=np.int32)

    def vector(self, values: Array, add: float = 0.0) -> Array:
        return np.asarray(values, dtype=np.float32) + np.float32(add)

    def weight(self, matrix: Array, fmt: Format) -> MatrixWeight:
        return MatrixWeight(matrix, fmt)

    def quantized_weight(self, matrix: QuantizedMatrix) -> MatrixWeight:
        return MatrixWeight(dequantized(matrix), "f32")

    def packed_arrays(self, weight: MatrixWeight) -> dict[str, Array]:
        return {"values": weight.rows(np.arange(weight.shape[0], dtype=np.int32))}

    def packed_weight(self, fmt: QuantizedFormat, shape: tuple[int, int], arrays: dict[str, Array]) -> MatrixWeight:
        return MatrixWeight(arrays["values"], "f32")

    def adapter_weights(self, projections: Sequence[AdapterProjection]) -> ReferenceAdapter:
        return ReferenceAdapter(
            projections,
            [
                [self._dora_gain(*item) for item in zip(projection.weights, projection.pairs, strict=True)]
                for projection in projections
            ],
        )

    def _dora_gain(self, weight: MatrixWeight, pair: LoraPair | None) -> F32 | None:
        if pair is None or pair.magnitude is None:
            return None
        a, b = np.asarray(pair.a, np.float32), np.asarray(pair.b, np.float32)
        left, right = (a.T, b.T) if is_table_pair(weight.shape, pair) else (b, a)
        left = left * np.asarray(pair.scale, np.float32)
        return dora_gain(lambda ids: self._rows(weight, ids) + left[ids] @ right, weight.shape, pair)

    def lora_arrays(self, weights: ReferenceAdapter) -> dict[str, Array]:
        return adapter_arrays(weights)

    def lora_from_arrays(
        self, arrays: Mapping[str, Array], projections: Sequence[Sequence[MatrixWeight]]
    ) -> ReferenceAdapter:
        return adapter_from_arrays(arrays, projections)

    def preallocate_adapter_memory(self) -> None:
        """Does nothing: this backend keeps an adapter in the arrays that it was read into."""

    def lora_plan(self, segments: Sequence[LoraSegment]) -> Sequence[LoraSegment]:
        return segments

    def attention_plan(self, rows: Sequence[AttentionRow], block_size: int) -> Sequence[AttentionRow]:
        return rows

    def new_kv(
        self, layers: int, num_blocks: int, block_size: int, kv_heads: int, head_dim: int, fmt: KVFormat = "f32"
    ) -> KVGroup:
        shape = (layers, num_blocks, block_size, kv_heads, head_dim)
        return kv_group(shape, fmt, np.zeros)  # zeros: pages are allocated when touched

    def copy_kv_block(self, cache: KVGroup, source: int, target: int) -> None:
        copy_block(cache, source, target)

    # -- the forward

    def embedding(
        self,
        table: MatrixWeight,
        ids: Array,
        scale: float,
        plan: Sequence[LoraSegment] | None = None,
        projection: int = 0,
    ) -> Array:
        x = self._rows(table, ids)
        for segment in plan or ():
            rows, change = slice(segment.start, segment.stop), segment.weights.projections[projection]
            if change.table is not None:
                x[rows] = self._rows(change.table, ids[rows])
            if change.pairs[0] is not None:
                gain = segment.weights.gains[projection][0]
                looked_up = change.pairs[0].a[:, ids[rows]].T.astype(np.float32)
                x[rows] = with_pair(x[rows], looked_up, change.pairs[0], gain, segment.scale)
            if change.rows is not None:
                replaced = np.isin(ids[rows], change.rows.ids)
                x[rows][replaced] = change.rows.rows[np.searchsorted(change.rows.ids, ids[rows][replaced])]
        return x * np.float32(scale)

    def rms_norm(
        self, x: Array, weight: Array, eps: float, plan: Sequence[LoraSegment] | None = None, projection: int = 0
    ) -> Array:
        return self._normed(x, weight, eps, plan, projection, 0)

    def _normed(
        self, x: F32, weight: F32, eps: float, plan: Sequence[LoraSegment] | None, projection: int, place: int
    ) -> F32:
        """x normed by the projection's norm number `place`, or by its replacement in the row's adapter. Rows are the
        first axis."""
        normed = _rms_norm(x, weight, eps)
        for segment in plan or ():
            norms, rows = segment.weights.projections[projection].norms, slice(segment.start, segment.stop)
            if place < len(norms) and norms[place] is not None:
                normed[rows] = _rms_norm(x[rows], norms[place], eps)
        return normed

    def linears(
        self, x: Array, weights: Sequence[MatrixWeight], plan: Sequence[LoraSegment] | None = None, projection: int = 0
    ) -> tuple[Array, ...]:
        outputs = tuple(self._product(x, weight) for weight in weights)
        for segment in plan or ():
            rows, adapter = slice(segment.start, segment.stop), segment.weights
            changes = zip(outputs, adapter.projections[projection].pairs, adapter.gains[projection], strict=True)
            for output, pair, gain in changes:
                if pair is not None:
                    shrunk = products(x[rows], pair.a)
                    output[rows] = with_pair(output[rows], shrunk, pair, gain, segment.scale)
        return outputs

    def _product(self, x: F32, weight: MatrixWeight) -> F32:
        """x · Wᵀ of a matrix of the base."""
        return weight.product(x)

    def _rows(self, weight: MatrixWeight, ids: npt.NDArray[np.int32]) -> F32:
        """[n, in] float32, rows of a matrix of the base."""
        return weight.rows(ids)

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
        tokens, dim = x.shape[0], kind.head_dim
        q, k, v = (projected.reshape(tokens, -1, dim) for projected in self.linears(x, qkv, adapters, projection))
        if kind.norms is not None:
            q = self._normed(q, kind.norms.q, kind.norms.eps, adapters, projection, 0)
            k = self._normed(k, kind.norms.k, kind.norms.eps, adapters, projection, 1)
        positions = np.concatenate([np.arange(row.context - (row.stop - row.start), row.context) for row in plan])
        q = self.rope(q, positions, kind.rope.theta, kind.rope.factor)
        k = self.rope(k, positions, kind.rope.theta, kind.rope.factor)
        for row in plan:
            store(cache, layer, row, k[row.start : row.stop], v[row.start : row.stop])
        return paged_attention(q, cache, layer, plan, kind).reshape(tokens, kind.num_heads * dim)

    def rope(self, x: Array, positions: Array, theta: float, factor: float) -> Array:
        """Rotate pairs (i, i + dim/2) of the last axis; x [tokens, heads, head_dim]."""
        return rotated(x, positions, theta, factor)

    def gated_linear(
        self,
        x: Array,
        gate: MatrixWeight,
        up: MatrixWeight,
        adapters: Sequence[LoraSegment] | None = None,
        projection: int = 0,
    ) -> Array:
        g, u = self.linears(x, (gate, up), adapters, projection)
        return self.gelu_gate(g, u)

    def gelu_gate(self, gate: Array, up: Array) -> Array:
        """gelu(gate) · up."""
        inner = np.float32(math.sqrt(2 / math.pi)) * (gate + np.float32(0.044715) * gate * gate * gate)
        return np.float32(0.5) * gate * (np.float32(1) + np.tanh(inner)) * up

    def add_projection(
        self,
        x: Array,
        y: Array,
        weight: MatrixWeight,
        post: Array | None,
        norm: Array,
        eps: float,
        adapters: Sequence[LoraSegment] | None = None,
        projection: int = 0,
    ) -> tuple[Array, Array]:
        (projected,) = self.linears(y, (weight,), adapters, projection)
        total = x + (projected if post is None else self._normed(projected, post, eps, adapters, projection, 0))
        return total, self._normed(total, norm, eps, adapters, projection, 1)

    def take_rows(self, x: Array, rows: Array) -> Array:
        return x[rows]

    def logits(
        self,
        x: Array,
        table: MatrixWeight,
        softcap: float | None,
        plan: Sequence[LoraSegment] | None = None,
        projection: int = 0,
    ) -> Array:
        (logits,) = self.linears(x, [table], plan, projection)
        for segment in plan or ():
            rows, change = slice(segment.start, segment.stop), segment.weights.projections[projection]
            if change.table is not None:
                logits[rows] = self._product(x[rows], change.table)
            if change.rows is not None:
                logits[rows, change.rows.ids] = products(x[rows], change.rows.rows)
        return softcapped(logits, softcap)

    # -- sampling

    def sample(self, logits: Array, rows: Sequence[SamplingRow], vocab_size: int) -> list[int]:
        return [sample_row(values[:vocab_size], row) for values, row in zip(logits, rows, strict=True)]


def _rms_norm(x: F32, weight: F32, eps: float) -> F32:
    mean_square = np.mean(np.square(x), axis=-1, keepdims=True, dtype=np.float32)
    normed: F32 = (x / np.sqrt(mean_square + np.float32(eps)) * weight).astype(np.float32, copy=False)
    return normed
