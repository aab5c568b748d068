"""Single parts of the fused operations: matrices that only select columns of x leave the part alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intaglio.ops import AttentionKind, AttentionRow, KVGroup, Ops, QKNorms, RopeKind, Weight
from tests.ops.cached_arrays import widened

F32 = NDArray[np.float32]

NO_ROTATION = RopeKind(1.0, 1e300)  # every angle rounds to 0


def picks(ops: Ops, *widths: int) -> list[Weight]:
    """Matrices that pick the first columns of x, the next, and so on, as many as each width says."""
    eye = np.eye(sum(widths), dtype=np.float32)
    ends = np.cumsum(widths)
    return [ops.weight(eye[end - width : end], "f32") for width, end in zip(widths, ends, strict=True)]


def gelu_gate(ops: Ops, gate: F32, up: F32) -> F32:
    """gelu(gate) · up, both [rows, width]."""
    width = gate.shape[1]
    out: F32 = ops.gated_linear(np.hstack([gate, up]), *picks(ops, width, width))
    return out


def add_norms(ops: Ops, x: F32, y: F32, post: F32 | None, norm: F32, eps: float = 1e-6) -> tuple[F32, F32]:
    """s = x + rms_norm(y, post), or x + y, and rms_norm(s, norm). All [rows, width]."""
    total, normed = ops.add_projection(x, y, picks(ops, x.shape[1])[0], post, norm, eps)
    return total, normed


@dataclass(frozen=True)
class Heads:
    """Attention over q, k and v that are given."""

    ops: Ops
    kind: AttentionKind
    qkv: Sequence[Weight]

    @classmethod
    def of(
        cls,
        ops: Ops,
        heads: int,
        kv_heads: int,
        dim: int,
        *,
        rope: RopeKind = NO_ROTATION,
        norms: QKNorms | None = None,
        scale: float = 0.3,
        window: int | None = None,
        cap: float | None = None,
    ) -> Heads:
        kind = AttentionKind(heads, kv_heads, dim, rope, norms, scale, window, cap)
        return cls(ops, kind, picks(ops, heads * dim, kv_heads * dim, kv_heads * dim))

    def run(self, q: F32, k: F32, v: F32, cache: KVGroup, layer: int, rows: Sequence[AttentionRow]) -> F32:
        """q [tokens, heads, dim], k and v [tokens, kv_heads, dim]; both go into the cache. Returns as q is shaped."""
        x = np.hstack([part.reshape(len(part), -1) for part in (q, k, v)])
        plan = self.ops.attention_plan(rows, cache.keys.shape[2])
        out: F32 = self.ops.self_attention(x, self.qkv, self.kind, cache, layer, plan)
        return out.reshape(q.shape)

    def over(self, q: F32, cache: KVGroup, layer: int, rows: Sequence[AttentionRow]) -> F32:
        """As `run`, over keys and values that are all in the cache already: the rows' own are written once more."""
        k, v = widened(cache)
        return self.run(q, cached(k, layer, rows), cached(v, layer, rows), cache, layer, rows)


def cached(values: F32, layer: int, rows: Sequence[AttentionRow]) -> F32:
    """What the cache has for the rows: [tokens, kv_heads, dim]."""
    size = values.shape[2]
    found = [
        values[layer, row.block_table[(position - row.first_key) // size], position % size]
        for row in rows
        for position in range(row.context - (row.stop - row.start), row.context)
    ]
    return np.stack(found)
