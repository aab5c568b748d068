"""Backends that break row independence on purpose: right but for the last bits, which depend on what else is
computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.ops import (
    Array,
    AttentionKind,
    AttentionRow,
    Format,
    KVGroup,
    LoraPlan,
    QuantizedMatrix,
)
from intaglio.ops.cpu import CpuOps, CpuWeight
from intaglio.ops.reference import ReferenceOps
from tests.ops.fused_op_parts import picks

F32 = NDArray[np.float32]


class _Halves(CpuWeight):
    """A matrix that can also be applied in two halves of its inputs."""

    def __init__(self, whole: CpuWeight, first: CpuWeight, second: CpuWeight) -> None:
        super().__init__(whole.fmt, whole.shape, whole.arrays)
        self.first, self.second = first, second


class SplitsTheSum(CpuOps):
    """A sum over the inputs that is split in two when there are several rows: what a GEMM likes to do."""

    def weight(self, matrix: Array, fmt: Format) -> CpuWeight:
        at = matrix.shape[1] // 64 * 32
        halves = [super(SplitsTheSum, self).weight(part, fmt) for part in (matrix[:, :at], matrix[:, at:]) if at]
        whole = super().weight(matrix, fmt)
        return _Halves(whole, *halves) if halves else whole

    def quantized_weight(self, matrix: QuantizedMatrix) -> CpuWeight:
        at = matrix.shape[1] // 64
        whole = super().quantized_weight(matrix)
        if at == 0:
            return whole
        parts = [
            QuantizedMatrix(
                matrix.fmt,
                matrix.values[:, 32 * groups.start : groups.stop and 32 * groups.stop],
                matrix.scales[:, groups],
                None if matrix.minima is None else matrix.minima[:, groups],
            )
            for groups in (slice(0, at), slice(at, None))
        ]
        return _Halves(whole, *(super(SplitsTheSum, self).quantized_weight(part) for part in parts))

    def splits(self, rows: int) -> bool:
        return rows > 1

    def linears(
        self, x: Array, weights: Sequence[CpuWeight], plan: LoraPlan | None = None, call: int = 0
    ) -> tuple[Array, ...]:
        together = super().linears(x, weights, plan, call)
        if not self.splits(x.shape[0]):
            return together
        outputs = []
        for item, whole in zip(weights, together, strict=True):
            if isinstance(item, _Halves):
                (base,) = super().linears(x, [item])
                at = item.first.shape[1]
                (first,) = super().linears(np.ascontiguousarray(x[:, :at]), [item.first])
                (second,) = super().linears(np.ascontiguousarray(x[:, at:]), [item.second])
                outputs.append(np.where(whole == base, first + second, whole))
            else:
                outputs.append(whole)
        return tuple(outputs)

    def add_projection(
        self,
        x: Array,
        y: Array,
        weight: CpuWeight,
        post: Array | None,
        norm: Array,
        eps: float,
        adapters: LoraPlan | None = None,
        call: int = 0,
    ) -> tuple[Array, Array]:
        """Projects with the split sum, then adds and norms with a matrix that changes nothing."""
        (projected,) = self.linears(y, [weight], adapters, call)
        return super().add_projection(x, projected, *picks(CpuOps(1), x.shape[1]), post, norm, eps)


class SplitsTheSumByThreads(SplitsTheSum):
    """The same, for every number of rows, as soon as there is a second thread to give a half to."""

    def splits(self, rows: int) -> bool:
        return self.threads > 1


class StartsAtTheChunk(CpuOps):
    """Attention that sums over the cached keys and over the chunk's own apart, as a merging of partial results does."""

    def attention_plan(self, rows: Sequence[AttentionRow], block_size: int) -> Any:
        return _PlanWithRows(super().attention_plan(rows, block_size), tuple(rows))

    def self_attention(
        self,
        x: Array,
        qkv: Sequence[CpuWeight],
        kind: AttentionKind,
        cache: KVGroup,
        layer: int,
        plan: Any,
        adapters: LoraPlan | None = None,
        call: int = 0,
    ) -> Array:
        out = super().self_attention(x, qkv, kind, cache, layer, plan.plan, adapters, call)
        q = self.linears(x, qkv, adapters, call)[0].reshape(len(x), kind.num_heads, kind.head_dim)
        plain = ReferenceOps()
        if kind.norms is not None:
            q = plain.rms_norm(q, kind.norms.q, kind.norms.eps)
        shared = kind.num_heads // kind.num_kv_heads
        for row in plan.rows:
            held = row.context - row.first_key
            keys = cache.keys[layer][list(row.block_table)].reshape(-1, *cache.keys.shape[3:])[:held]
            values = cache.values[layer][list(row.block_table)].reshape(-1, *cache.values.shape[3:])[:held]
            chunk_start = row.context - (row.stop - row.start)
            for token in range(row.start, row.stop):
                position = chunk_start + token - row.start
                turned = plain.rope(q[token : token + 1], np.array([position]), kind.rope.theta, kind.rope.factor)[0]
                first = 0 if kind.window is None else max(0, position - kind.window + 1)
                span = slice(first - row.first_key, position + 1 - row.first_key)
                for head in range(kind.num_heads):
                    k, v = keys[span, head // shared], values[span, head // shared]
                    at = max(0, chunk_start - first)
                    mixed = _in_two_parts(turned[head], k, v, at, kind.scale, kind.softcap)
                    out[token, head * kind.head_dim : (head + 1) * kind.head_dim] = mixed
        return out


@dataclass(frozen=True, slots=True)
class _PlanWithRows:
    plan: Any
    rows: tuple[AttentionRow, ...]


def _in_two_parts(q: F32, keys: F32, values: F32, at: int, scale: float, cap: float | None) -> F32:
    scores = np.array([(q * key).sum() for key in keys], np.float32) * np.float32(scale)
    if cap is not None:
        scores = np.tanh(scores / np.float32(cap)) * np.float32(cap)
    weights = np.exp(scores - scores.max())[:, None]
    total, mixed = np.float32(0), np.zeros_like(q)
    for part in (slice(0, at), slice(at, None)):
        part_total, part_mixed = np.float32(0), np.zeros_like(q)
        for weight_, value in zip(weights[part], values[part], strict=True):
            part_total, part_mixed = part_total + weight_[0], part_mixed + weight_ * value
        total, mixed = total + part_total, mixed + part_mixed
    return np.asarray(mixed / total, np.float32)
