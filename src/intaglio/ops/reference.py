"""The specification: every operation in float32 NumPy, written to be checked by hand.

The matrix products go to NumPy's BLAS, whose sums depend in their last bits on the number of rows; everything else
treats each row for itself. A faster body is held to this one by tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from intaglio.ops import (
    GROUP,
    AdapterCall,
    Array,
    AttentionKind,
    AttentionRow,
    Format,
    KVGroup,
    LoraPair,
    LoraSegment,
    QuantizedFormat,
    QuantizedMatrix,
    SamplingRow,
    TokenRows,
)
from intaglio.ops.dora import dora_gain, is_table_pair
from intaglio.ops.logprobs import HostDistributions
from intaglio.ops.sampling import sample_row

F32 = npt.NDArray[np.float32]

_MOST_NORMS = 2  # that a call takes
_WIDEN_ROWS_BYTES = 4 << 20  # widen bfloat16 in pieces that stay in the cache


class MatrixWeight:
    """A matrix [out, in], held as float32 or as bfloat16 that is widened piece by piece where it is used."""

    def __init__(self, matrix: npt.NDArray[np.generic], fmt: Format) -> None:
        dtype: npt.DTypeLike = np.float32 if fmt == "f32" else ml_dtypes.bfloat16
        self._data: npt.NDArray[np.floating[Any]] = np.ascontiguousarray(matrix, dtype=dtype)
        self.shape: tuple[int, int] = (matrix.shape[0], matrix.shape[1])
        self.nbytes: int = self._data.nbytes

    def rows(self, ids: npt.NDArray[np.int32]) -> F32:
        """[n, in] float32, the rows asked for."""
        rows: F32 = self._data[ids].astype(np.float32)
        return rows

    def project(self, x: F32) -> F32:
        """x · Wᵀ: [tokens, in] -> [tokens, out]."""
        if self._data.dtype == np.float32:
            product: F32 = x @ self._data.T
            return product
        out = np.empty((x.shape[0], self.shape[0]), np.float32)
        for start, stop in self._pieces():
            out[:, start:stop] = x @ self._data[start:stop].astype(np.float32).T
        return out

    def _pieces(self) -> Iterator[tuple[int, int]]:
        step = max(1, _WIDEN_ROWS_BYTES // (4 * self.shape[1]))
        for start in range(0, self.shape[0], step):
            yield start, min(start + step, self.shape[0])


@dataclass(frozen=True, slots=True)
class ReferenceAdapter:
    """An adapter as it came, call by call, and the gains of its pairs."""

    calls: Sequence[AdapterCall]
    gains: Sequence[Sequence[F32 | None]]


class ReferenceOps(HostDistributions):
    """The NumPy body of `Ops`; the docstrings there are its specification."""

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

    def lora_weights(self, calls: Sequence[AdapterCall]) -> ReferenceAdapter:
        return ReferenceAdapter(
            calls, [[self._gain(*item) for item in zip(call.weights, call.pairs, strict=True)] for call in calls]
        )

    def _gain(self, weight: MatrixWeight, pair: LoraPair | None) -> F32 | None:
        if pair is None or pair.magnitude is None:
            return None
        a, b = np.asarray(pair.a, np.float32), np.asarray(pair.b, np.float32)
        left, right = (a.T, b.T) if is_table_pair(weight.shape, pair) else (b, a)
        left = left * np.asarray(pair.scale, np.float32)
        return dora_gain(lambda ids: self._rows(weight, ids) + left[ids] @ right, weight.shape, pair)

    def lora_arrays(self, weights: ReferenceAdapter) -> dict[str, Array]:
        return {
            f"{index} {name}": np.asarray(array)
            for index, (call, gains) in enumerate(zip(weights.calls, weights.gains, strict=True))
            for name, array in _call_arrays(call, gains)
        }

    def lora_from_arrays(
        self, arrays: Mapping[str, Array], calls: Sequence[Sequence[MatrixWeight]]
    ) -> ReferenceAdapter:
        by_call: list[dict[str, Array]] = [{} for _ in calls]
        for name, array in arrays.items():
            index, _, rest = name.partition(" ")
            if int(index) >= len(calls):
                raise ValueError("an adapter of another model")
            by_call[int(index)][rest] = array
        read = [_call_from_arrays(weights, found) for weights, found in zip(calls, by_call, strict=True)]
        return ReferenceAdapter([call for call, _ in read], [gains for _, gains in read])

    def rest(self) -> None:
        """Nothing is worth doing ahead here."""

    def lora_plan(self, segments: Sequence[LoraSegment]) -> Sequence[LoraSegment]:
        return segments

    def attention_plan(self, rows: Sequence[AttentionRow], block_size: int) -> Sequence[AttentionRow]:
        return rows

    def new_kv(self, layers: int, num_blocks: int, block_size: int, kv_heads: int, head_dim: int) -> KVGroup:
        shape = (layers, num_blocks, block_size, kv_heads, head_dim)
        return KVGroup(np.zeros(shape, np.float32), np.zeros(shape, np.float32))  # zeros: pages come when touched

    # -- the forward

    def embedding(
        self,
        table: MatrixWeight,
        ids: Array,
        scale: float,
        plan: Sequence[LoraSegment] | None = None,
        call: int = 0,
    ) -> Array:
        x = self._rows(table, ids)
        for segment in plan or ():
            rows, change = slice(segment.start, segment.stop), segment.weights.calls[call]
            if change.table is not None:
                x[rows] = self._rows(change.table, ids[rows])
            if change.pairs[0] is not None:
                gain = segment.weights.gains[call][0]
                looked_up = change.pairs[0].a[:, ids[rows]].T.astype(np.float32)
                x[rows] = _with_pair(x[rows], looked_up, change.pairs[0], gain, segment.scale)
            if change.rows is not None:
                replaced = np.isin(ids[rows], change.rows.ids)
                x[rows][replaced] = change.rows.rows[np.searchsorted(change.rows.ids, ids[rows][replaced])]
        return x * np.float32(scale)

    def rms_norm(
        self, x: Array, weight: Array, eps: float, plan: Sequence[LoraSegment] | None = None, call: int = 0
    ) -> Array:
        return self._normed(x, weight, eps, plan, call, 0)

    def _normed(
        self, x: F32, weight: F32, eps: float, plan: Sequence[LoraSegment] | None, call: int, place: int
    ) -> F32:
        """By the norm that is the call's `place`-th, or by that of each row's adapter. Rows are the first axis."""
        normed = _rms_norm(x, weight, eps)
        for segment in plan or ():
            norms, rows = segment.weights.calls[call].norms, slice(segment.start, segment.stop)
            if place < len(norms) and norms[place] is not None:
                normed[rows] = _rms_norm(x[rows], norms[place], eps)
        return normed

    def linears(
        self, x: Array, weights: Sequence[MatrixWeight], plan: Sequence[LoraSegment] | None = None, call: int = 0
    ) -> tuple[Array, ...]:
        outputs = tuple(self._product(x, weight) for weight in weights)
        for segment in plan or ():
            rows, adapter = slice(segment.start, segment.stop), segment.weights
            changes = zip(outputs, adapter.calls[call].pairs, adapter.gains[call], strict=True)
            for output, pair, gain in changes:
                if pair is not None:
                    shrunk = x[rows] @ pair.a.T.astype(np.float32)
                    output[rows] = _with_pair(output[rows], shrunk, pair, gain, segment.scale)
        return outputs

    def _product(self, x: F32, weight: MatrixWeight) -> F32:
        """x · Wᵀ of a matrix of the base."""
        return weight.project(x)

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
        call: int = 0,
    ) -> Array:
        tokens, dim = x.shape[0], kind.head_dim
        q, k, v = (projected.reshape(tokens, -1, dim) for projected in self.linears(x, qkv, adapters, call))
        if kind.norms is not None:
            q = self._normed(q, kind.norms.q, kind.norms.eps, adapters, call, 0)
            k = self._normed(k, kind.norms.k, kind.norms.eps, adapters, call, 1)
        positions = np.concatenate([np.arange(row.context - (row.stop - row.start), row.context) for row in plan])
        q = self.rope(q, positions, kind.rope.theta, kind.rope.factor)
        k = self.rope(k, positions, kind.rope.theta, kind.rope.factor)
        for row in plan:
            self._store(cache, layer, row, k[row.start : row.stop], v[row.start : row.stop])
        return self._attention(q, cache, layer, plan, kind).reshape(tokens, kind.num_heads * dim)

    def rope(self, x: Array, positions: Array, theta: float, factor: float) -> Array:
        """Rotate pairs (i, i + dim/2) of the last axis; x [tokens, heads, head_dim]."""
        half = x.shape[-1] // 2
        # The angles are made in float64 and rounded once: float32 powers would move them by more than their last bit.
        inverse_frequency = np.power(theta, -np.arange(half, dtype=np.float64) / half) / factor
        angles = positions[:, None].astype(np.float64) * inverse_frequency  # [tokens, half]
        cos = np.cos(angles).astype(np.float32)[:, None, :]
        sin = np.sin(angles).astype(np.float32)[:, None, :]
        first, second = x[..., :half], x[..., half:]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def _store(self, cache: KVGroup, layer: int, row: AttentionRow, k: F32, v: F32) -> None:
        """Put the keys and values of a sequence's new tokens into its blocks."""
        block_size = cache.keys.shape[2]
        table = np.asarray(row.block_table, dtype=np.int32)
        held = np.arange(row.context - (row.stop - row.start), row.context) - row.first_key
        blocks, places = table[held // block_size], held % block_size
        cache.keys[layer, blocks, places], cache.values[layer, blocks, places] = k, v

    def _attention(self, q: F32, cache: KVGroup, layer: int, plan: Sequence[AttentionRow], kind: AttentionKind) -> F32:
        out = np.empty_like(q)
        for row in plan:
            held = row.context - row.first_key
            keys = _gather(cache.keys[layer], row.block_table, held)
            values = _gather(cache.values[layer], row.block_table, held)
            key_positions = np.arange(row.first_key, row.context)
            query_positions = np.arange(row.context - (row.stop - row.start), row.context)
            visible = _visible(query_positions, key_positions, kind.window)
            rows = slice(row.start, row.stop)
            out[rows] = _attend(q[rows], keys, values, visible, kind.scale, kind.softcap)
        return out

    def gated_linear(
        self,
        x: Array,
        gate: MatrixWeight,
        up: MatrixWeight,
        adapters: Sequence[LoraSegment] | None = None,
        call: int = 0,
    ) -> Array:
        g, u = self.linears(x, (gate, up), adapters, call)
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
        call: int = 0,
    ) -> tuple[Array, Array]:
        (projected,) = self.linears(y, (weight,), adapters, call)
        total = x + (projected if post is None else self._normed(projected, post, eps, adapters, call, 0))
        return total, self._normed(total, norm, eps, adapters, call, 1)

    def take_rows(self, x: Array, rows: Array) -> Array:
        return x[rows]

    def logits(
        self,
        x: Array,
        table: MatrixWeight,
        softcap: float | None,
        plan: Sequence[LoraSegment] | None = None,
        call: int = 0,
    ) -> Array:
        (logits,) = self.linears(x, [table], plan, call)
        for segment in plan or ():
            rows, change = slice(segment.start, segment.stop), segment.weights.calls[call]
            if change.table is not None:
                logits[rows] = self._product(x[rows], change.table)
            if change.rows is not None:
                logits[rows, change.rows.ids] = x[rows] @ change.rows.rows.T
        return _softcapped(logits, softcap)

    # -- choosing tokens

    def sample(self, logits: Array, rows: Sequence[SamplingRow], vocab_size: int) -> list[int]:
        return [sample_row(values[:vocab_size], row) for values, row in zip(logits, rows, strict=True)]


def _call_arrays(call: AdapterCall, gains: Sequence[F32 | None]) -> Iterator[tuple[str, Array]]:
    for place, (pair, gain) in enumerate(zip(call.pairs, gains, strict=True)):
        if pair is not None:
            parts = {"a": pair.a, "b": pair.b, "scale": pair.scale, "bias": pair.bias, "gain": gain}
            yield from ((f"{name} {place}", part) for name, part in parts.items() if part is not None)
    yield from ((f"norm {place}", norm) for place, norm in enumerate(call.norms) if norm is not None)
    if call.table is not None:
        yield "table", call.table.rows(np.arange(call.table.shape[0], dtype=np.int32))
    if call.rows is not None:
        yield from (("ids", call.rows.ids), ("rows", call.rows.rows))


def _call_from_arrays(
    weights: Sequence[MatrixWeight], arrays: Mapping[str, Array]
) -> tuple[AdapterCall, Sequence[F32 | None]]:
    places = range(len(weights))
    pairs = [
        LoraPair(arrays[f"a {i}"], arrays[f"b {i}"], arrays[f"scale {i}"], arrays.get(f"bias {i}"))
        if f"a {i}" in arrays
        else None
        for i in places
    ]
    norms = [arrays.get(f"norm {place}") for place in range(_MOST_NORMS)]
    table = MatrixWeight(arrays["table"], "f32") if "table" in arrays else None
    rows = TokenRows(arrays["ids"], arrays["rows"]) if "ids" in arrays else None
    return AdapterCall(weights, pairs, norms, table, rows), [arrays.get(f"gain {i}") for i in places]


def _rms_norm(x: F32, weight: F32, eps: float) -> F32:
    mean_square = np.mean(np.square(x), axis=-1, keepdims=True, dtype=np.float32)
    normed: F32 = (x / np.sqrt(mean_square + np.float32(eps)) * weight).astype(np.float32, copy=False)
    return normed


def _with_pair(base: F32, shrunk: F32, pair: LoraPair, gain: F32 | None, scale: float) -> F32:
    """What `LoraPair` says: base [rows, out] and x · aᵀ [rows, rank] -> [rows, out]. gain is [out] or None."""
    total: F32 = base + (shrunk * np.asarray(pair.scale, np.float32) * np.float32(scale)) @ pair.b.T.astype(np.float32)
    if pair.bias is not None:
        total += np.float32(scale) * pair.bias
    return total if gain is None else total * gain


def dequantized(matrix: QuantizedMatrix) -> F32:
    """The float32 values that a quantized matrix stands for: [out, in]."""
    inputs = matrix.shape[1]
    values: F32 = (matrix.values.astype(np.float32) - matrix.centre) * _per_input(matrix.scales, inputs)
    return values if matrix.minima is None else values - _per_input(matrix.minima, inputs)


def _per_input(per_group: npt.NDArray[np.float16], inputs: int) -> F32:
    """[out, groups] -> [out, in]: each group's number for all its inputs."""
    return np.repeat(per_group.astype(np.float32), GROUP, axis=1)[:, :inputs]


def _gather(blocks: F32, table: Sequence[int], count: int) -> F32:
    """The first `count` cached vectors of the listed blocks: [count, kv_heads, head_dim]."""
    gathered = blocks[np.asarray(table, dtype=np.int32)]
    return gathered.reshape(-1, *blocks.shape[2:])[:count]


def _visible(queries: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], window: int | None) -> npt.NDArray[np.bool_]:
    """[queries, keys]: query p sees key j when p - window < j <= p."""
    distance = queries[:, None] - keys[None, :]
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)


def _attend(q: F32, keys: F32, values: F32, visible: npt.NDArray[np.bool_], scale: float, softcap: float | None) -> F32:
    tokens, heads, dim = q.shape
    kv_heads = keys.shape[1]
    # Heads that share keys stand together: [kv_heads, heads per key * tokens, dim].
    grouped = q.reshape(tokens, kv_heads, -1, dim).transpose(1, 2, 0, 3)
    scores = grouped.reshape(kv_heads, -1, dim) @ keys.transpose(1, 2, 0) * np.float32(scale)
    scores = _softcapped(scores, softcap).reshape(kv_heads, -1, tokens, keys.shape[0])
    scores = np.where(visible, scores, np.float32(-np.inf))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = weights.reshape(kv_heads, -1, keys.shape[0]) @ values.transpose(1, 0, 2)
    out: F32 = mixed.reshape(kv_heads, -1, tokens, dim).transpose(2, 0, 1, 3).reshape(tokens, heads, dim)
    return out


def _softcapped(x: F32, cap: float | None) -> F32:
    if cap is None:
        return x
    capped: F32 = np.tanh(x / np.float32(cap)) * np.float32(cap)
    return capped
