"""Every body of `Ops` against the one-number-at-a-time bodies of `naive`, on awkward sizes.

Attention and sampling have files of their own; what only the kernels can do (quantized matrices) is in `test_cpu.py`.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio.ops import LoraPair, LoraSegment, Ops, QKNorms, RopeKind
from tests.ops import naive
from tests.ops.bodies import SIZES

F32 = NDArray[np.float32]


def numbers(seed: int, *shape: int) -> F32:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def close(ours: F32, exact: NDArray[np.float64], tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest value, and float32."""
    assert ours.dtype == np.float32
    assert ours.shape == exact.shape
    assert np.abs(ours - exact).max(initial=0) <= tolerance * max(1.0, np.abs(exact).max(initial=0))


@pytest.mark.parametrize("tokens", SIZES)
@pytest.mark.parametrize(("inside", "outside"), [(1, 7), (133, 3), (7, 133)])
def test_linears_multiply_by_each_matrix(ops: Ops, tokens: int, inside: int, outside: int) -> None:
    x, w1, w2 = numbers(1, tokens, inside), numbers(2, outside, inside), numbers(3, 2, inside)
    first, second = ops.linears(x, [ops.weight(w1, "f32"), ops.weight(w2, "f32")])
    close(first, naive.linear(x, w1))
    close(second, naive.linear(x, w2))


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
    adapters = [ops.lora_weights([pairs]) for pairs in ((one, three), (None, three), (other, None))]
    segments = [LoraSegment(2, 3, adapters[0]), LoraSegment(3, 9, adapters[1]), LoraSegment(9, 11, adapters[2])]
    first, second = ops.linears(x, [ops.weight(w, "f32") for w in weights], ops.lora_plan(segments))
    exact_first, exact_second = naive.linear(x, weights[0]), naive.linear(x, weights[1])
    exact_first[2:3] += x[2:3].astype(float) @ one.a.T.astype(float) @ one.b.T.astype(float)
    exact_first[9:11] += x[9:11].astype(float) @ other.a.T.astype(float) @ other.b.T.astype(float)
    exact_second[2:9] += x[2:9].astype(float) @ three.a.T.astype(float) @ three.b.T.astype(float)
    close(first, exact_first)
    close(second, exact_second)


@pytest.mark.parametrize("size", SIZES)
def test_rms_norm_divides_by_the_root_of_the_mean_square(ops: Ops, size: int) -> None:
    weight = numbers(3, size)
    for x in (numbers(1, 7, size), numbers(2, 1, size) * np.float32(1e-3)):
        close(ops.rms_norm(x, weight, 1e-6), naive.rms_norm(x, weight, 1e-6))


def test_rms_norm_of_zeros_is_zero(ops: Ops) -> None:
    assert not ops.rms_norm(np.zeros((2, 7), np.float32), numbers(1, 7), 1e-6).any()


@pytest.mark.parametrize("size", SIZES)
def test_add_norm_adds_the_normed_or_the_plain_one(ops: Ops, size: int) -> None:
    x, y, weight = numbers(1, 7, size), numbers(2, 7, size), numbers(3, size)
    close(ops.add_norm(x, y, weight, 1e-6), x + naive.rms_norm(y, weight, 1e-6))
    assert np.array_equal(ops.add_norm(x, y, None, 1e-6), x + y)


def rotated(ops: Ops, x: F32, positions: list[int], kind: RopeKind, norms: QKNorms | None = None) -> tuple[F32, F32]:
    """What becomes of x as queries, and as keys on their way through the cache."""
    tokens, heads, dim = x.shape
    cache = ops.new_kv(1, tokens, 1, heads, dim)
    slots = ops.integers(range(tokens))
    q = ops.rope_and_cache(x.copy(), x.copy(), x, ops.integers(positions), kind, norms, cache, 0, slots)
    return q, cache.keys[0, :, 0]


@pytest.mark.parametrize("dim", [2, 6, 14, 256])
@pytest.mark.parametrize(("theta", "factor"), [(10_000.0, 1.0), (1_000_000.0, 8.0)])
def test_rope_turns_the_two_halves_against_each_other(ops: Ops, dim: int, theta: float, factor: float) -> None:
    positions = [0, 1, 2, 511, 131_071 if dim < 256 else 8191]
    x = numbers(1, len(positions), 3, dim)
    exact = naive.rope(x, np.array(positions, np.int32), theta, factor)
    for turned in rotated(ops, x, positions, RopeKind(theta, factor)):
        close(turned, exact)


def test_rope_keeps_position_zero_and_every_length(ops: Ops) -> None:
    x = numbers(1, 2, 3, 14)
    turned, _ = rotated(ops, x, [0, 133], RopeKind(10_000.0, 1.0))
    assert np.array_equal(turned[0], x[0])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-6)


@pytest.mark.parametrize("dim", [2, 6, 256])
def test_heads_are_normed_before_they_are_rotated(ops: Ops, dim: int) -> None:
    x, positions, kind = numbers(1, 3, 2, dim), [5, 0, 700], RopeKind(10_000.0, 1.0)
    norms = QKNorms(numbers(2, dim), numbers(3, dim), 1e-6)
    for turned, weight in zip(rotated(ops, x, positions, kind, norms), (norms.q, norms.k), strict=True):
        normed = naive.rms_norm(x, weight, 1e-6).astype(np.float32)
        close(turned, naive.rope(normed, np.array(positions, np.int32), kind.theta, kind.factor))


def test_keys_and_values_go_to_their_slots_of_their_layer_only(ops: Ops) -> None:
    cache = ops.new_kv(2, 3, 4, 1, 2)
    keys = np.arange(1, 5, dtype=np.float32).reshape(2, 1, 2)
    q = np.zeros((2, 3, 2), np.float32)
    slots, positions = ops.integers([9, 2]), ops.integers([0, 0])
    ops.rope_and_cache(q, keys.copy(), keys + 10, positions, RopeKind(1e4, 1.0), None, cache, 1, slots)
    assert np.array_equal(cache.keys[1, 2, 1], keys[0])
    assert np.array_equal(cache.keys[1, 0, 2], keys[1])
    assert np.array_equal(cache.values[1, 2, 1], keys[0] + 10)
    assert np.count_nonzero(cache.keys) == 4
    assert np.count_nonzero(cache.values) == 4


def test_gelu_gate_is_the_tanh_form_times_up(ops: Ops) -> None:
    gate, up = numbers(1, 7, 133) * 3, numbers(2, 7, 133)
    close(ops.gelu_gate(gate, up), naive.gelu_gate(gate, up), 2e-6)


def test_gelu_gate_goes_to_zero_and_to_the_identity_far_out(ops: Ops) -> None:
    gate = np.array([[-100.0, -0.0, 100.0]], np.float32)
    assert ops.gelu_gate(gate, np.ones_like(gate)).tolist() == [[0.0, 0.0, 100.0]]


@pytest.mark.parametrize("fmt", ["f32", "bf16"])
def test_embedding_takes_rows_and_scales_them(ops: Ops, fmt: str) -> None:
    table, ids = numbers(1, 133, 7), ops.integers([132, 0, 0, 5])
    stored = table if fmt == "f32" else table.astype(ml_dtypes.bfloat16).astype(np.float32)
    rows = ops.embedding(ops.weight(table, "f32" if fmt == "f32" else "bf16"), ids, 2.5)
    assert np.array_equal(rows, stored[[132, 0, 0, 5]] * np.float32(2.5))


@pytest.mark.parametrize("cap", [None, 30.0])
def test_logits_multiply_by_the_table_and_cap_the_result(ops: Ops, cap: float | None) -> None:
    x, table = numbers(1, 3, 7) * 20, numbers(2, 133, 7)
    exact = np.vectorize(lambda value: naive.softcap(value, cap))(naive.linear(x, table))
    logits = ops.logits(x, ops.weight(table, "f32"), cap)
    close(logits, exact)
    assert cap is None or np.abs(logits).max() <= cap


def test_vector_adds_its_constant_to_a_copy(ops: Ops) -> None:
    host = numbers(1, 7)
    before = host.copy()
    assert np.array_equal(ops.vector(host, add=1.0), host + np.float32(1))
    assert np.array_equal(host, before)
    assert not np.shares_memory(ops.vector(host), host)


def test_take_rows(ops: Ops) -> None:
    x = numbers(1, 7, 3)
    assert np.array_equal(ops.take_rows(x, ops.integers([6, 0, 6])), x[[6, 0, 6]])
    assert ops.take_rows(x, ops.integers([])).shape == (0, 3)


def test_nothing_comes_of_no_rows(ops: Ops) -> None:
    none = np.empty((0, 7), np.float32)
    weight = ops.weight(numbers(1, 5, 7), "f32")
    assert ops.linears(none, [weight])[0].shape == (0, 5)
    assert ops.embedding(weight, ops.integers([]), 1.0).shape == (0, 7)
    assert ops.rms_norm(none, numbers(2, 7), 1e-6).shape == (0, 7)
    assert ops.gelu_gate(none, none).shape == (0, 7)
    assert ops.logits(none, weight, 30.0).shape == (0, 5)
    assert ops.sample(np.empty((0, 5), np.float32), [], 5) == []


def test_no_op_changes_its_arguments(ops: Ops) -> None:
    x, weight, scale = numbers(1, 21, 14), numbers(2, 133, 14), numbers(3, 14)
    pair = LoraPair(numbers(4, 2, 14), numbers(5, 133, 2))
    before = [array.copy() for array in (x, weight, scale, pair.a, pair.b)]
    ops.rms_norm(x, scale, 1e-6)
    ops.add_norm(x, x, scale, 1e-6)
    ops.linears(x, [ops.weight(weight, "f32")], ops.lora_plan([LoraSegment(0, 21, ops.lora_weights([[pair]]))]))
    ops.logits(x, ops.weight(weight, "f32"), 2.0)
    ops.gelu_gate(x, x)
    for array, old in zip((x, weight, scale, pair.a, pair.b), before, strict=True):
        assert np.array_equal(array, old)


def test_softcap_bends_but_keeps_order(ops: Ops) -> None:
    x = np.linspace(-200, 200, 133, dtype=np.float32)[:, None]
    logits = ops.logits(x, ops.weight(np.ones((1, 1), np.float32), "f32"), 50.0)[:, 0]
    assert (np.diff(logits) >= 0).all()
    assert logits[66] == 0
    assert math.isclose(logits[-1], 50 * math.tanh(4), rel_tol=1e-6)
