"""Row independence, bit for bit: what a row gets does not depend on the rows beside it, on how a prompt is cut, on
where its blocks lie, or on the number of threads.

The checks take the body to be judged, so that they can be turned on bodies that break the rule on purpose: a check that
lets those pass proves nothing.
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
    LoraPair,
    LoraPlan,
    LoraSegment,
    Ops,
    QKNorms,
    QuantizedMatrix,
    RopeKind,
    Weight,
)
from intaglio.ops.cpu import CpuOps, CpuWeight
from intaglio.ops.reference import ReferenceOps
from tests.ops.alone import Heads, add_norms, gelu_gate, picks
from tests.ops.bodies import lora_weights
from tests.ops.quantized import KINDS, random_matrix

F32 = NDArray[np.float32]

FORMATS = (*KINDS, "bf16", "f32")
ALONE = 1  # threads of the body that says what is right


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
    return lora_weights(ops, [[pairs[0], pairs[1] if index % 2 else None]])


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
    cache = ops.new_kv(1, sum(counts), case.block_size, case.kv_heads, case.dim)
    cache.keys[:], cache.values[:] = np.nan, np.nan
    free = order(sum(counts)).tolist()
    tables = [[free.pop() for _ in range(count)] for count in counts]
    for k, v, table in zip(keys, values, tables, strict=True):
        for position in range(len(k)):
            block, offset = table[position // case.block_size], position % case.block_size
            cache.keys[0, block, offset], cache.values[0, block, offset] = k[position], v[position]
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


# ------------------------------------------------------------------------------------------- bodies that break the rule


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
