"""All that an adapter can change in an op, in every backend, against float64: scale, bias, gain, lookup, norms, tables,
rows.

Each case also runs from the arrays that are kept on disk, and each row alone: it must get the same bits as in company.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio.ops import (
    AdapterProjection,
    AdapterWeights,
    AttentionRow,
    LoraPair,
    LoraSegment,
    Ops,
    QKNorms,
    TokenRows,
    Weight,
)
from intaglio.ops.cpu import CpuOps
from intaglio.ops.reference import ReferenceOps
from tests.ops import float64_reference
from tests.ops.backends import SIZES
from tests.ops.fused_op_parts import Heads, picks
from tests.ops.test_backends import close, numbers

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

EPS = 1e-6

AdapterMaker = Callable[[Ops, AdapterProjection], AdapterWeights]


def prepared(ops: Ops, call: AdapterProjection) -> AdapterWeights:
    return ops.adapter_weights([call])


def from_disk(ops: Ops, call: AdapterProjection) -> AdapterWeights:
    """Through copies of its arrays, as a file gives them."""
    arrays = {name: np.array(array) for name, array in ops.lora_arrays(ops.adapter_weights([call])).items()}
    return ops.lora_from_arrays(arrays, [call.weights])


@pytest.fixture(params=[prepared, from_disk])
def make(request: pytest.FixtureRequest) -> AdapterMaker:
    maker: AdapterMaker = request.param
    return maker


def delta(pair: LoraPair, x: F32) -> F64:
    """x · aᵀ · bᵀ with the pair's scale, in float64."""
    shrunk = x.astype(float) @ pair.a.T.astype(float) * np.asarray(pair.scale, float)
    out: F64 = shrunk @ pair.b.T.astype(float)
    return out


@pytest.mark.parametrize("outside", SIZES)
def test_an_adapters_scale_in_a_request_multiplies_what_it_adds(ops: Ops, make: AdapterMaker, outside: int) -> None:
    x, w = numbers(1, 9, 21), numbers(2, outside, 21)
    pair = LoraPair(numbers(3, 5, 21), numbers(4, outside, 5), 0.5, bias=numbers(5, outside))
    weight = ops.weight(w, "f32")
    adapter = make(ops, AdapterProjection([weight], [pair]))
    plan = ops.lora_plan(
        [LoraSegment(1, 4, adapter, 0.7), LoraSegment(4, 5, adapter), LoraSegment(6, 8, adapter, -2.0)]
    )
    (out,) = ops.linears(x, [weight], plan)
    exact = float64_reference.linear(x, w)
    for start, stop, scale in ((1, 4, 0.7), (4, 5, 1.0), (6, 8, -2.0)):
        exact[start:stop] += scale * (delta(pair, x[start:stop]) + pair.bias)
    close(out, exact)


def test_rows_of_several_adapters_get_the_sum_of_what_they_add(ops: Ops, make: AdapterMaker) -> None:
    x, w = numbers(1, 7, 33), numbers(2, 50, 33)
    weight = ops.weight(w, "f32")
    pairs = [
        LoraPair(numbers(3, 4, 33), numbers(4, 50, 4)),
        LoraPair(numbers(5, 1, 33), numbers(6, 50, 1), bias=numbers(7, 50)),
        LoraPair(numbers(8, 9, 33), numbers(9, 50, 9)),
    ]
    adapters = [make(ops, AdapterProjection([weight], [pair])) for pair in pairs]
    segments = [(2, 6, 0, 0.25), (2, 6, 1, 1.0), (2, 6, 2, -1.5), (6, 7, 1, 2.0)]
    plan = ops.lora_plan([LoraSegment(start, stop, adapters[i], scale) for start, stop, i, scale in segments])
    (out,) = ops.linears(x, [weight], plan)
    exact = float64_reference.linear(x, w)
    for start, stop, i, scale in segments:
        bias = 0 if pairs[i].bias is None else pairs[i].bias
        exact[start:stop] += scale * (delta(pairs[i], x[start:stop]) + bias)
    close(out, exact)


def gain_of(w: F32, pair: LoraPair) -> F64:
    """DoRA as the paper and PEFT have it: m over the length of each row of W + scale · b · a."""
    merged = w.astype(float) + pair.b.astype(float) * np.asarray(pair.scale, float) @ pair.a.astype(float)
    gain: F64 = pair.magnitude / np.linalg.norm(merged, axis=1)
    return gain


@pytest.mark.parametrize("outside", SIZES)
def test_a_magnitude_rescales_each_row_of_the_sum_of_base_and_adapter(
    ops: Ops, make: AdapterMaker, outside: int
) -> None:
    x, w, other = numbers(1, 9, 21), numbers(2, outside, 21), numbers(3, 4, 21)
    magnitude = np.abs(numbers(6, outside)) + np.float32(0.5)
    pair = LoraPair(numbers(4, 5, 21), numbers(5, outside, 5), 0.25, magnitude=magnitude)
    weights = [ops.weight(w, "f32"), ops.weight(other, "f32")]
    plan = ops.lora_plan([LoraSegment(2, 7, make(ops, AdapterProjection(weights, [pair, None])))])
    out, untouched = ops.linears(x, weights, plan)
    exact = float64_reference.linear(x, w)
    exact[2:7] = gain_of(w, pair) * (exact[2:7] + delta(pair, x[2:7]))
    close(out, exact)
    close(untouched, float64_reference.linear(x, other))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
@pytest.mark.parametrize(("rank", "has_magnitude"), [(1, False), (3, True), (4, True), (7, False), (8, False)])
def test_an_adapter_of_the_embedding_adds_to_each_token_of_its_rows(
    ops: Ops, make: AdapterMaker, dtype: Any, rank: int, has_magnitude: bool
) -> None:
    """h = scale · (E[t] + a[:, t]ᵀ · bᵀ), rescaled by gains over all tokens: the scale is for the delta too."""
    vocab, hidden = 37, 21
    table = numbers(1, vocab, hidden)
    factor = 50 if dtype is np.int8 else 1
    a = (numbers(2, rank, vocab) * factor).astype(dtype)
    b = (numbers(3, hidden, rank) * factor).astype(dtype)
    magnitude = np.abs(numbers(4, hidden)) + np.float32(0.5) if has_magnitude else None
    pair = LoraPair(a, b, np.full(rank, 1 / factor**2, np.float32), magnitude=magnitude)
    weight = ops.weight(table, "f32")
    ids = np.array([0, 36, 5, 5, 17, 0, 36], np.int32)
    segment = LoraSegment(1, 6, make(ops, AdapterProjection([weight], [pair])), 1.0 if has_magnitude else 0.5)
    out = ops.embedding(weight, ids, 6.5, ops.lora_plan([segment]))
    merged = table.astype(float)
    merged += segment.scale * (a.T.astype(float) @ b.T.astype(float)) / factor**2
    if magnitude is not None:
        merged *= magnitude / np.linalg.norm(merged, axis=0)
    close(out, 6.5 * np.vstack([table[ids[:1]], merged[ids[1:6]], table[ids[6:]]]).astype(float))


def test_replaced_rows_and_tables_apply_to_the_rows_of_their_adapter_only(ops: Ops, make: AdapterMaker) -> None:
    table, other = numbers(1, 37, 21), numbers(2, 37, 21)
    weight = ops.weight(table, "f32")
    rows = TokenRows(np.array([5, 36], np.int32), numbers(3, 2, 21))
    some = make(ops, AdapterProjection([weight], [None], rows=rows))
    whole = make(ops, AdapterProjection([weight], [None], table=ops.weight(other, "f32")))
    plan = ops.lora_plan([LoraSegment(1, 4, some), LoraSegment(5, 7, whole)])
    ids = np.array([5, 36, 5, 7, 5, 36, 0, 36], np.int32)
    expected = table[ids]
    expected[1], expected[2] = rows.rows[1], rows.rows[0]
    expected[5:7] = other[ids[5:7]]
    close(ops.embedding(weight, ids, 3.0, plan), 3.0 * expected.astype(float))
    x = numbers(4, 8, 21)
    logits = float64_reference.linear(x, table)
    logits[1:4, [5, 36]] = float64_reference.linear(x[1:4], rows.rows)
    logits[5:7] = float64_reference.linear(x[5:7], other)
    close(ops.logits(x, weight, None, plan), logits)
    close(ops.logits(x, weight, 7.0, plan), 7.0 * np.tanh(logits / 7.0))


def test_an_adapter_of_the_head_adds_to_the_logits_of_its_rows(ops: Ops, make: AdapterMaker) -> None:
    table, x = numbers(1, 133, 21), numbers(2, 6, 21)
    pair = LoraPair(numbers(3, 3, 21), numbers(4, 133, 3))
    weight = ops.weight(table, "f32")
    plan = ops.lora_plan([LoraSegment(2, 5, make(ops, AdapterProjection([weight], [pair])))])
    exact = float64_reference.linear(x, table)
    exact[2:5] += delta(pair, x[2:5])
    close(ops.logits(x, weight, 5.0, plan), 5.0 * np.tanh(exact / 5.0))


@pytest.mark.parametrize("width", SIZES)
def test_replaced_norms_apply_to_the_rows_of_their_adapter_only(ops: Ops, make: AdapterMaker, width: int) -> None:
    x, y = numbers(1, 19, width), numbers(2, 19, width)
    base, theirs, post, their_post = (numbers(seed, width) for seed in (3, 4, 5, 6))
    (matrix,) = picks(ops, width)
    first = make(ops, AdapterProjection([matrix], [None], [theirs]))
    second = make(ops, AdapterProjection([matrix], [None], [their_post, theirs]))
    last = make(ops, AdapterProjection([matrix], [None], [None, their_post]))
    plan = ops.lora_plan([LoraSegment(3, 5, first), LoraSegment(0, 1, first)])
    exact = float64_reference.rms_norm(x, base, EPS)
    for rows in (slice(0, 1), slice(3, 5)):
        exact[rows] = float64_reference.rms_norm(x[rows], theirs, EPS)
    close(ops.rms_norm(x, base, EPS, plan), exact)

    segments = [LoraSegment(2, 3, second), LoraSegment(3, 18, last)]
    total, normed = ops.add_projection(x, y, matrix, post, base, EPS, ops.lora_plan(segments))
    exact_total = x + float64_reference.rms_norm(y, post, EPS)
    exact_total[2:3] = x[2:3] + float64_reference.rms_norm(y[2:3], their_post, EPS)
    exact_normed = float64_reference.rms_norm(exact_total.astype(np.float32), base, EPS)
    for rows, norm in ((slice(2, 3), theirs), (slice(3, 18), their_post)):
        exact_normed[rows] = float64_reference.rms_norm(exact_total[rows].astype(np.float32), norm, EPS)
    close(total, exact_total)
    close(normed, exact_normed, 1e-4)


def test_replaced_norms_of_queries_and_keys_are_told_apart(ops: Ops, make: AdapterMaker) -> None:
    """Two sequences; the second has the adapter, and gets what it gets from a model with these norms."""
    x, rows = numbers(1, 5, 3 * 16), [AttentionRow(0, 3, 3, 0, [1]), AttentionRow(3, 5, 2, 0, [0])]
    base, theirs = (QKNorms(numbers(seed, 16), numbers(seed + 1, 16), EPS) for seed in (2, 4))

    def attend(norms: QKNorms, adapted: bool = False) -> tuple[F32, F32]:
        heads, cache = Heads.of(ops, 1, 1, 16, norms=norms), ops.new_kv(1, 2, 3, 1, 16)
        adapter = make(ops, AdapterProjection(heads.qkv, [None] * 3, [theirs.q, theirs.k]))
        plan = ops.lora_plan([LoraSegment(3, 5, adapter)] if adapted else [])
        out = ops.self_attention(x, heads.qkv, heads.kind, cache, 0, ops.attention_plan(rows, 3), plan)
        return out, cache.keys[0, :, :, 0]

    of_base, of_theirs = attend(base), attend(theirs)
    out, keys = attend(base, adapted=True)
    close(out, np.vstack([of_base[0][:3], of_theirs[0][3:]]).astype(float))
    close(keys, np.stack([of_theirs[1][0], of_base[1][1]]).astype(float))


def test_an_adapter_that_only_adds_leaves_every_norm_to_the_base(ops: Ops, make: AdapterMaker) -> None:
    x, base = numbers(1, 5, 33), numbers(2, 33)
    adapter = make(ops, AdapterProjection([picks(ops, 33)[0]], [None]))
    plan = ops.lora_plan([LoraSegment(0, 5, adapter)])
    assert np.array_equal(ops.rms_norm(x, base, EPS, plan), ops.rms_norm(x, base, EPS))


class Everything:
    """One call of each operation with adapters that change all they can, for rows picked out of seven."""

    def __init__(self, ops: Ops) -> None:
        self.ops = ops
        self.ids = np.array([5, 36, 5, 7, 30, 36, 0], np.int32)
        self.x, self.y = numbers(1, 7, 21), numbers(2, 7, 21)
        self.table = ops.weight(numbers(3, 37, 21), "f32")
        self.matrix = ops.weight(numbers(4, 21, 21), "f32")
        self.norm, self.post = numbers(5, 21), numbers(6, 21)
        rows = TokenRows(np.array([5], np.int32), numbers(7, 1, 21))
        lookup = LoraPair(numbers(8, 6, 37), numbers(9, 21, 6), magnitude=np.abs(numbers(10, 21)))
        square = LoraPair(numbers(11, 6, 21), numbers(12, 21, 6), magnitude=np.abs(numbers(13, 21)))
        added = LoraPair(numbers(14, 3, 21), numbers(15, 21, 3), bias=numbers(16, 21))
        self.replaces = self._adapter(lookup, square, [numbers(17, 21), numbers(18, 21)], rows)
        self.adds = self._adapter(None, added, [], None)
        self.adds_too = self._adapter(None, LoraPair(numbers(19, 2, 21), numbers(20, 21, 2)), [], None)

    def _adapter(
        self, lookup: LoraPair | None, square: LoraPair, norms: Sequence[F32], rows: TokenRows | None
    ) -> AdapterWeights:
        call: Callable[[Weight, LoraPair | None], AdapterProjection] = lambda weight, pair: AdapterProjection(  # noqa: E731
            [weight], [pair], norms, None, rows
        )
        return self.ops.adapter_weights([call(self.table, lookup), call(self.matrix, square)])

    def run(self, picked: Sequence[int]) -> list[F32]:
        """Rows 1 and 2 have the adapter that replaces, 3 to 5 two that add, the others the base."""
        ops = self.ops
        segments = []
        for first, stop, adapter, scale in (
            (1, 3, self.replaces, 1.0),
            (3, 6, self.adds, 0.5),
            (3, 6, self.adds_too, -2.0),
        ):
            mine = [place for place, row in enumerate(picked) if first <= row < stop]
            if mine:
                segments.append(LoraSegment(mine[0], mine[-1] + 1, adapter, scale))
        plan, rows = ops.lora_plan(segments), list(picked)
        x, y = np.ascontiguousarray(self.x[rows]), np.ascontiguousarray(self.y[rows])
        return [
            ops.embedding(self.table, self.ids[rows], 2.0, plan, 0),
            ops.rms_norm(x, self.norm, EPS, plan, 0),
            ops.linears(x, [self.matrix], plan, 1)[0],
            *ops.add_projection(x, y, self.matrix, self.post, self.norm, EPS, plan, 1),
            ops.logits(x, self.table, 4.0, ops.lora_plan([]), 0),
        ]


def test_a_row_gets_the_same_bits_alone_and_in_a_batch(kernels: CpuOps) -> None:
    everything = Everything(kernels)
    together = everything.run(range(7))
    for picked in ([0], [1], [2], [4], [1, 4], [2, 3, 5], [0, 1, 2, 3, 6]):
        for whole, some in zip(together, everything.run(picked), strict=True):
            assert np.array_equal(whole[list(picked)], some)


def test_every_backend_agrees_with_the_specification(ops: Ops) -> None:
    for ours, expected in zip(Everything(ops).run(range(7)), Everything(ReferenceOps()).run(range(7)), strict=True):
        close(ours, expected.astype(float), 1e-4)


def test_arrays_of_another_model_are_refused(kernels: CpuOps) -> None:
    weight = kernels.weight(numbers(1, 5, 7), "f32")
    call = AdapterProjection([weight], [LoraPair(numbers(2, 3, 7), numbers(3, 5, 3))])
    arrays = kernels.lora_arrays(kernels.adapter_weights([call]))
    with pytest.raises(ValueError, match="another model"):
        kernels.lora_from_arrays(arrays, [[weight], [weight]])
    with pytest.raises(ValueError, match="other sizes than the shapes"):
        kernels.lora_from_arrays(arrays | {"values": np.zeros(5, np.uint8)}, [[weight]])
