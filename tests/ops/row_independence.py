"""Row independence, bit for bit: what a row gets does not depend on the rows beside it, on how a prompt is cut, on
where its blocks lie, or on the number of threads.

The checks take the backend to be judged, so that they can be turned on backends that break the rule on purpose: a check
that lets those pass verifies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.ops import (
    Array,
    AttentionRow,
    KVFormat,
    KVGroup,
    LoraPair,
    LoraSegment,
    Ops,
    QKNorms,
    RopeKind,
    Weight,
)
from tests.ops.backends import adapter_weights
from tests.ops.cached_arrays import fill
from tests.ops.fused_op_parts import Heads, add_norms, gelu_gate
from tests.ops.quantized import KINDS, random_matrix

F32 = NDArray[np.float32]

FORMATS = (*KINDS, "bf16", "f32")


def numbers(seed: int, *shape: int) -> F32:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def same_bits(ours: Array, theirs: Array) -> bool:
    """Unlike ==, tells 0 from -0 and a NaN from nothing."""
    return np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


# ---------------------------------------------------------------------------------------------------------- projections


@dataclass(frozen=True)
class Projection:
    """A call of `linears` with two matrices. segments: (rows, rank; 0 is the base model), one behind the other."""

    segments: tuple[tuple[int, int], ...]
    inputs: int
    outputs: tuple[int, int]
    formats: tuple[str, str]
    seed: int


def weight(ops: Ops, fmt: str, out: int, inputs: int, seed: int) -> Weight:
    if fmt.startswith("w"):
        return ops.quantized_weight(random_matrix(fmt, out, inputs, seed))
    return ops.weight(numbers(seed, out, inputs), "bf16" if fmt == "bf16" else "f32")


def check_linears(ops: Ops, case: Projection) -> None:
    """Each row as in a batch of its own, and the whole batch turned round."""
    rows = sum(count for count, _ in case.segments)
    x = numbers(case.seed, rows, case.inputs)
    weights = [
        weight(ops, fmt, out, case.inputs, case.seed + i)
        for i, (fmt, out) in enumerate(zip(case.formats, case.outputs, strict=True))
    ]
    adapters = [_adapter(ops, case, rank, index) for index, (_, rank) in enumerate(case.segments)]
    starts = np.cumsum([0, *(count for count, _ in case.segments)]).tolist()
    segments = [
        LoraSegment(start, stop, adapter)
        for start, stop, adapter in zip(starts, starts[1:], adapters, strict=False)
        if adapter is not None
    ]
    together = ops.linears(x, weights, ops.lora_plan(segments))
    for start, stop, adapter in zip(starts, starts[1:], adapters, strict=False):
        for row in range(start, stop):
            own = [] if adapter is None else [LoraSegment(0, 1, adapter)]
            alone = ops.linears(x[row : row + 1], weights, ops.lora_plan(own))
            for ours, theirs in zip(together, alone, strict=True):
                assert same_bits(ours[row], theirs[0]), f"row {row} of {rows} differs from itself alone"
    turned = [LoraSegment(rows - item.stop, rows - item.start, item.weights) for item in reversed(segments)]
    for ours, theirs in zip(together, ops.linears(x[::-1].copy(), weights, ops.lora_plan(turned)), strict=True):
        assert same_bits(ours, theirs[::-1]), "rows in another order differ"


def _adapter(ops: Ops, case: Projection, rank: int, index: int) -> Any:
    if rank == 0:
        return None
    seed = case.seed + 10 * index
    pairs = [LoraPair(numbers(seed, rank, case.inputs), numbers(seed + 1, out, rank)) for out in case.outputs]
    return adapter_weights(ops, [[pairs[0], pairs[1] if index % 2 else None]])


# ------------------------------------------------------------------------------------------------------------ attention


@dataclass(frozen=True)
class Attention:
    """Sequences of these lengths, each computed whole and alone, against all of them together in chunks."""

    lengths: tuple[int, ...]
    chunk: int
    kv_heads: int
    heads_per_kv: int
    dim: int
    block_size: int
    window: int | None
    cap: float | None
    seed: int
    fmt: KVFormat = "f32"

    def on(self, ops: Ops) -> Heads:
        heads = self.kv_heads * self.heads_per_kv
        return Heads.of(ops, heads, self.kv_heads, self.dim, window=self.window, cap=self.cap)


def check_attention(ops: Ops, judge: Ops, case: Attention) -> None:
    """The judge computes each sequence whole, alone and on fresh blocks, and never gives one back."""
    queries = [
        numbers(case.seed + i, n, case.kv_heads * case.heads_per_kv, case.dim) for i, n in enumerate(case.lengths)
    ]
    keys = [numbers(case.seed + 100 + i, n, case.kv_heads, case.dim) for i, n in enumerate(case.lengths)]
    values = [numbers(case.seed + 200 + i, n, case.kv_heads, case.dim) for i, n in enumerate(case.lengths)]
    whole = []
    for q, k, v in zip(queries, keys, values, strict=True):
        cache, tables = _cache(judge, case, [k], [v], np.arange)
        whole.append(case.on(judge).over(q, cache, 0, [AttentionRow(0, len(q), len(q), 0, tables[0])]))
    cache, tables = _cache(ops, case, keys, values, np.random.default_rng(case.seed).permutation)
    heads, done = case.on(ops), 0
    while done < max(case.lengths):
        rows, parts, start = [], [], 0
        for q, table in zip(queries, tables, strict=True):
            end = min(done + case.chunk, len(q))
            if end <= done:
                continue
            # Blocks that the first of these tokens no longer sees are given back, as the engine does.
            gone = 0 if case.window is None else max(0, done - case.window + 1) // case.block_size
            held = table[gone : -(-end // case.block_size)]
            rows.append(AttentionRow(start, start + end - done, end, gone * case.block_size, held))
            parts.append(q[done:end])
            start += end - done
        out = heads.over(np.concatenate(parts), cache, 0, rows)
        at = 0
        for q, expected in zip(queries, whole, strict=True):
            here = expected[done : min(done + case.chunk, len(q))]
            assert same_bits(out[at : at + len(here)], here), "a chunk among others differs from the whole alone"
            at += len(here)
        done += case.chunk


def _cache(
    ops: Ops, case: Attention, keys: Sequence[F32], values: Sequence[F32], order: Any
) -> tuple[KVGroup, list[list[int]]]:
    counts = [-(-len(k) // case.block_size) for k in keys]
    cache = ops.new_kv(1, sum(counts), case.block_size, case.kv_heads, case.dim, case.fmt)
    fill(cache, ..., np.nan, np.nan)
    free = order(sum(counts)).tolist()
    tables = [[free.pop() for _ in range(count)] for count in counts]
    for k, v, table in zip(keys, values, tables, strict=True):
        for position in range(len(k)):
            block, offset = table[position // case.block_size], position % case.block_size
            fill(cache, (0, block, offset), k[position], v[position])
    return cache, tables


# ---------------------------------------------------------------------------------------------------------- row by row


def check_rows(ops: Ops, rows: int, width: int, seed: int) -> None:
    """Norms, gate, cap, embedding and rope: each row of many against the row alone."""
    x, y, norm = numbers(seed, rows, width), numbers(seed + 1, rows, width), numbers(seed + 2, width)
    eye = ops.weight(np.eye(width, dtype=np.float32), "f32")
    by_row = {
        "rms_norm": lambda s: ops.rms_norm(x[s], norm, 1e-6),
        "add_projection": lambda s: np.hstack(add_norms(ops, x[s], y[s], norm, norm + 1)),
        "add_projection without a post norm": lambda s: np.hstack(add_norms(ops, x[s], y[s], None, norm)),
        "gated_linear": lambda s: gelu_gate(ops, x[s], y[s]),
        "logits": lambda s: ops.logits(x[s], eye, 2.0),
        "embedding": lambda s: ops.embedding(eye, ops.integers(list(range(width))[s]), 1.7),
        "rope": lambda s: roped(ops, x[s, : width // 2 * 2], np.arange(rows)[s] * 97),
    }
    for name, op in by_row.items():
        together = op(slice(None))
        for row in range(min(rows, len(together))):
            assert same_bits(together[row], op(slice(row, row + 1))[0]), f"{name}: row {row} of {rows} differs"


def roped(ops: Ops, x: F32, positions: NDArray[np.int64]) -> F32:
    """x [n, dim] normed and rotated: what it sees as queries of itself and of one key before it, and itself as keys."""
    n, dim = x.shape
    one, norm = x.reshape(n, 1, dim), numbers(dim, dim)
    cache = ops.new_kv(1, 2 * n, 1, 1, dim)
    cache.keys[:], cache.values[:] = 1, 1
    heads = Heads.of(ops, 1, 1, dim, rope=RopeKind(1e4, 1.0), norms=QKNorms(norm, norm, 1e-6), window=2)
    rows = [AttentionRow(i, i + 1, int(at) + 2, int(at), [2 * i, 2 * i + 1]) for i, at in enumerate(positions)]
    seen = heads.run(one, one, one, cache, 0, rows)
    return np.hstack([seen[:, 0], cache.keys[0, 1::2, 0, 0]])
