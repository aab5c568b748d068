"""Every backend of `Ops` against the one-number-at-a-time functions of `float64_reference`, on awkward sizes.

Attention and sampling have files of their own; what only the kernels can do (quantized matrices) is in `test_cpu.py`.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio.ops import AttentionRow, LoraPair, LoraSegment, Ops, QKNorms, RopeKind
from tests.ops import float64_reference
from tests.ops.backends import SIZES, adapter_weights
from tests.ops.fused_op_parts import Heads, add_norms, gelu_gate

F32 = NDArray[np.float32]

EPS = 0.25  # so large that a norm without it, or with it outside the root, is far off


def numbers(seed: int, *shape: int) -> F32:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def close(ours: F32, exact: NDArray[np.float64], tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest value, and float32."""
    assert ours.dtype == np.float32
    assert ours.shape == exact.shape
    assert np.abs(ours - exact).max(initial=0) <= tolerance * max(1.0, np.abs(exact).max(initial=0))


@pytest.mark.parametrize(
    ("tokens", "inside", "outside"),
    [(1, 133, 3), (2, 1, 7), (3, 7, 133), (7, 1, 7), (7, 133, 3), (133, 7, 17), (133, 133, 2)],
)
def test_linears_multiply_by_each_matrix(ops: Ops, tokens: int, inside: int, outside: int) -> None:
    x, w1, w2 = numbers(1, tokens, inside), numbers(2, outside, inside), numbers(3, 2, inside)
    first, second = ops.linears(x, [ops.weight(w1, "f32"), ops.weight(w2, "f32")])
    close(first, float64_reference.linear(x, w1))
    close(second, float64_reference.linear(x, w2))


def test_bfloat16_weights_are_rounded_once_and_multiplied_in_float32(ops: Ops) -> None:
    # So many rows that they are widened in several pieces, the last of them a short one.
    x, matrix = numbers(1, 3, 7), numbers(2, 150_001, 7)
    (out,) = ops.linears(x, [ops.weight(matrix, "bf16")])
    rounded = matrix.astype(ml_dtypes.bfloat16).astype(np.float64)
    close(out, x.astype(np.float64) @ rounded.T)


def test_adapters_add_to_their_own_rows_and_matrices_only(ops: Ops) -> None:
    x, weights = numbers(1, 13, 7), [numbers(2, 5, 7), numbers(3, 3, 7)]
    one = LoraPair(numbers(4, 1, 7), numbers(5, 5, 1))
    three = LoraPair(numbers(6, 3, 7), numbers(7, 3, 3))
    other = LoraPair(numbers(8, 133, 7), numbers(9, 5, 133))
    adapters = [adapter_weights(ops, [pairs]) for pairs in ((one, three), (None, three), (other, None))]
    segments = [LoraSegment(2, 3, adapters[0]), LoraSegment(3, 9, adapters[1]), LoraSegment(9, 11, adapters[2])]
    first, second = ops.linears(x, [ops.weight(w, "f32") for w in weights], ops.lora_plan(segments))
    exact_first, exact_second = float64_reference.linear(x, weights[0]), float64_reference.linear(x, weights[1])
    exact_first[2:3] += x[2:3].astype(float) @ one.a.T.astype(float) @ one.b.T.astype(float)
    exact_first[9:11] += x[9:11].astype(float) @ other.a.T.astype(float) @ other.b.T.astype(float)
    exact_second[2:9] += x[2:9].astype(float) @ three.a.T.astype(float) @ three.b.T.astype(float)
    close(first, exact_first)
    close(second, exact_second)


@pytest.mark.parametrize("size", SIZES)
def test_rms_norm_divides_by_the_root_of_the_mean_square(ops: Ops, size: int) -> None:
    weight = numbers(3, size)
    for x in (numbers(1, 7, size), numbers(2, 1, size) * np.float32(1e-3)):
        close(ops.rms_norm(x, weight, 1e-6), float64_reference.rms_norm(x, weight, 1e-6))


def test_rms_norm_of_zeros_is_zero(ops: Ops) -> None:
    assert not ops.rms_norm(np.zeros((2, 7), np.float32), numbers(1, 7), 1e-6).any()


@pytest.mark.parametrize("size", SIZES)
def test_the_output_of_a_half_layer_is_added_normed_or_not_and_the_sum_is_normed(ops: Ops, size: int) -> None:
    x, y, post, weight = numbers(1, 7, size), numbers(2, 7, size), numbers(3, size), numbers(4, size)
    cases = (
        (*add_norms(ops, x, y, post, weight, EPS), x + float64_reference.rms_norm(y, post, EPS)),
        (*add_norms(ops, x, y, None, weight, EPS), x + y),
    )
    for total, normed, exact in cases:
        close(total, exact)
        assert np.array_equal(normed, ops.rms_norm(total, weight, EPS))


def turned_keys(ops: Ops, x: F32, positions: list[int], kind: RopeKind, norms: QKNorms | None = None) -> F32:
    """What becomes of x [tokens, heads, dim] as keys: what the cache has. Each token is a sequence that sees itself."""
    tokens, heads, dim = x.shape
    cache = ops.new_kv(1, tokens, 1, heads, dim)
    alone = Heads.of(ops, heads, heads, dim, rope=kind, norms=norms, window=1)
    alone.run(x, x, x, cache, 0, [AttentionRow(i, i + 1, at + 1, at, [i]) for i, at in enumerate(positions)])
    keys: F32 = cache.keys[0, :, 0]
    return keys


def turned_queries(ops: Ops, x: F32, positions: list[int], kind: RopeKind, norms: QKNorms | None = None) -> F32:
    """What becomes of x as queries, seen through keys that are unit vectors: the score of the i-th is the query's i-th
    element, and the weights of two keys differ by the exponential of their scores' difference. Positions are above
    dim / 2, so that it holds half of the unit vectors and a key of zeros.
    """
    heads, dim = x.shape[1:]
    half, block = dim // 2, dim // 2 + 2
    alone = Heads.of(ops, heads, heads, dim, rope=kind, norms=norms, scale=0.1, window=block)
    out = np.empty_like(x)
    for part in (slice(0, half), slice(half, dim)):
        for i, at in enumerate(positions):
            first = at - half - 1
            first_key = first // block * block
            cache = ops.new_kv(1, 2, block, heads, dim)
            keys, values = (array.reshape(2 * block, heads, dim) for array in (cache.keys, cache.values))
            unit = np.eye(dim, dtype=np.float32)[part, None, :]
            keys[first - first_key : at - 1 - first_key] = unit
            values[first - first_key : at - 1 - first_key] = unit
            values[at - 1 - first_key, :, (part.start + half) % dim] = 1  # the key of zeros
            row = [AttentionRow(0, 1, at + 1, first_key, [0, 1])]
            weights = alone.run(x[i : i + 1], x[i : i + 1], np.zeros((1, heads, dim), np.float32), cache, 0, row)[0]
            out[i, :, part] = np.log(weights[:, part] / weights[:, (part.start + half) % dim, None]) / 0.1
    return out


@pytest.mark.parametrize(
    ("dim", "theta", "factor"),
    [(2, 10_000.0, 1.0), (6, 1_000_000.0, 8.0), (14, 10_000.0, 1.0), (14, 1_000_000.0, 8.0), (256, 1_000_000.0, 8.0)],
)
def test_rope_turns_the_two_halves_against_each_other(ops: Ops, dim: int, theta: float, factor: float) -> None:
    positions = [0, 1, 2, 511, 131_071 if dim < 256 else 8191]
    x, kind = numbers(1, len(positions), 3, dim), RopeKind(theta, factor)
    close(turned_keys(ops, x, positions, kind), float64_reference.rope(x, np.array(positions, np.int32), theta, factor))
    later = [position + dim for position in positions]
    seen = turned_queries(ops, x, later, kind)
    np.testing.assert_allclose(
        seen, float64_reference.rope(x, np.array(later, np.int32), theta, factor), rtol=0, atol=5e-5
    )


def test_rope_keeps_position_zero_and_every_length(ops: Ops) -> None:
    x = numbers(1, 2, 3, 14)
    turned = turned_keys(ops, x, [0, 133], RopeKind(10_000.0, 1.0))
    assert np.array_equal(turned[0], x[0])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-6)


@pytest.mark.parametrize("dim", [2, 6, 256])
def test_heads_are_normed_before_they_are_rotated(ops: Ops, dim: int) -> None:
    x, positions, kind = numbers(1, 3, 2, dim), [dim + 5, dim, 700], RopeKind(10_000.0, 1.0)
    norms = QKNorms(numbers(2, dim), numbers(3, dim), EPS)
    exact = [
        float64_reference.rope(
            float64_reference.rms_norm(x, weight, EPS).astype(np.float32),
            np.array(positions, np.int32),
            kind.theta,
            kind.factor,
        )
        for weight in (norms.q, norms.k)
    ]
    np.testing.assert_allclose(turned_queries(ops, x, positions, kind, norms), exact[0], rtol=0, atol=2e-4)
    close(turned_keys(ops, x, positions, kind, norms), exact[1])


def test_keys_and_values_go_to_their_slots_of_their_layer_only(ops: Ops) -> None:
    cache = ops.new_kv(2, 3, 4, 1, 2)
    keys = np.arange(1, 5, dtype=np.float32).reshape(2, 1, 2)
    rows = [AttentionRow(0, 1, 6, 4, [2]), AttentionRow(1, 2, 3, 0, [0])]
    Heads.of(ops, 3, 1, 2, window=1).run(np.zeros((2, 3, 2), np.float32), keys, keys + 10, cache, 1, rows)
    assert np.array_equal(cache.keys[1, 2, 1], keys[0])
    assert np.array_equal(cache.keys[1, 0, 2], keys[1])
    assert np.array_equal(cache.values[1, 2, 1], keys[0] + 10)
    assert np.count_nonzero(cache.keys) == 4
    assert np.count_nonzero(cache.values) == 4


@pytest.mark.parametrize("rows", [7, 40])  # 40 rows are so many that threads share them
def test_the_gate_is_the_tanh_form_times_up(ops: Ops, rows: int) -> None:
    gate, up = numbers(1, rows, 133) * 3, numbers(2, rows, 133)
    close(gelu_gate(ops, gate, up), float64_reference.gelu_gate(gate, up), 2e-6)


def test_a_gated_linear_gates_what_linears_gives_adapters_and_all(ops: Ops) -> None:
    x, gate, up = numbers(1, 7, 21), numbers(2, 37, 21), numbers(3, 37, 21)
    pairs = [LoraPair(numbers(4, 2, 21), numbers(5, 37, 2)), LoraPair(numbers(6, 3, 21), numbers(7, 37, 3))]
    plan = ops.lora_plan([LoraSegment(2, 5, adapter_weights(ops, [[None], pairs]))])
    weights = [ops.weight(matrix, "f32") for matrix in (gate, up)]
    close(ops.gated_linear(x, *weights, plan, 1), float64_reference.gelu_gate(*ops.linears(x, weights, plan, 1)), 2e-6)


def test_the_gate_goes_to_zero_and_to_the_identity_far_out(ops: Ops) -> None:
    gate = np.array([[-100.0, -0.0, 100.0]], np.float32)
    assert gelu_gate(ops, gate, np.ones_like(gate)).tolist() == [[0.0, 0.0, 100.0]]


@pytest.mark.parametrize("fmt", ["f32", "bf16"])
def test_embedding_takes_rows_and_scales_them(ops: Ops, fmt: str) -> None:
    table, ids = numbers(1, 133, 7), ops.integers([132, 0, 0, 5])
    stored = table if fmt == "f32" else table.astype(ml_dtypes.bfloat16).astype(np.float32)
    rows = ops.embedding(ops.weight(table, "f32" if fmt == "f32" else "bf16"), ids, 2.5)
    assert np.array_equal(rows, stored[[132, 0, 0, 5]] * np.float32(2.5))


@pytest.mark.parametrize("cap", [None, 30.0])
def test_logits_multiply_by_the_table_and_cap_the_result(ops: Ops, cap: float | None) -> None:
    x, table = numbers(1, 3, 7) * 20, numbers(2, 133, 7)
    exact = np.vectorize(lambda value: float64_reference.softcap(value, cap))(float64_reference.linear(x, table))
    logits = ops.logits(x, ops.weight(table, "f32"), cap)
    close(logits, exact)
    assert cap is None or np.abs(logits).max() <= cap


def test_every_logit_is_capped_where_threads_share_a_row(ops: Ops) -> None:
    x, table = numbers(1, 2, 1) * 100, numbers(2, 20_001, 1)
    close(ops.logits(x, ops.weight(table, "f32"), 30.0), 30 * np.tanh(x.astype(float) @ table.T.astype(float) / 30))


def test_vector_adds_its_constant_to_a_copy(ops: Ops) -> None:
    host = numbers(1, 7)
    before = host.copy()
    assert np.array_equal(ops.vector(host, add=1.0), host + np.float32(1))
    assert np.array_equal(host, before)
    assert not np.shares_memory(ops.vector(host), host)


def test_take_rows_gives_the_named_rows(ops: Ops) -> None:
    x = numbers(1, 7, 3)
    assert np.array_equal(ops.take_rows(x, ops.integers([6, 0, 6])), x[[6, 0, 6]])
    assert ops.take_rows(x, ops.integers([])).shape == (0, 3)


def test_no_rows_give_an_empty_result(ops: Ops) -> None:
    none = np.empty((0, 7), np.float32)
    weight = ops.weight(numbers(1, 5, 7), "f32")
    assert ops.linears(none, [weight])[0].shape == (0, 5)
    assert ops.embedding(weight, ops.integers([]), 1.0).shape == (0, 7)
    assert ops.rms_norm(none, numbers(2, 7), 1e-6).shape == (0, 7)
    assert ops.gated_linear(none, weight, weight).shape == (0, 5)
    assert add_norms(ops, none, none, None, numbers(2, 7))[1].shape == (0, 7)
    assert ops.logits(none, weight, 30.0).shape == (0, 5)
    assert ops.sample(np.empty((0, 5), np.float32), [], 5) == []


def test_no_op_changes_its_arguments(ops: Ops) -> None:
    x, weight, scale = numbers(1, 21, 14), numbers(2, 133, 14), numbers(3, 14)
    pair = LoraPair(numbers(4, 2, 14), numbers(5, 133, 2))
    before = [array.copy() for array in (x, weight, scale, pair.a, pair.b)]
    ops.rms_norm(x, scale, 1e-6)
    add_norms(ops, x, x, scale, scale)
    ops.linears(x, [ops.weight(weight, "f32")], ops.lora_plan([LoraSegment(0, 21, adapter_weights(ops, [[pair]]))]))
    ops.logits(x, ops.weight(weight, "f32"), 2.0)
    ops.gated_linear(x, ops.weight(weight, "f32"), ops.weight(weight, "f32"))
    for array, old in zip((x, weight, scale, pair.a, pair.b), before, strict=True):
        assert np.array_equal(array, old)


def test_softcap_bends_but_keeps_order(ops: Ops) -> None:
    x = np.linspace(-200, 200, 133, dtype=np.float32)[:, None]
    logits = ops.logits(x, ops.weight(np.ones((1, 1), np.float32), "f32"), 50.0)[:, 0]
    assert (np.diff(logits) >= 0).all()
    assert logits[66] == 0
    assert math.isclose(logits[-1], 50 * math.tanh(4), rel_tol=1e-6)
