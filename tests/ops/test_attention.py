"""Paged attention of every backend against one query at a time over keys that lie in order.

The kernels take 4 queries, 32 keys and 64 dims at a time, so the numbers here lie around these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from intaglio.ops import AttentionRow, KVFormat
from tests.helpers.drawn_cases import drawn_cases
from tests.ops import float64_reference
from tests.ops.backends import BACKENDS, KERNELS, shared_kernels
from tests.ops.cached_arrays import KEY_GROUP, KV_FORMATS, fill, rounded, widened
from tests.ops.fused_op_parts import Heads
from tests.ops.row_independence import Attention, check_attention, numbers, same_bits

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """Sequences in one forward: (tokens in the cache before it, new tokens) each."""

    lengths: tuple[tuple[int, int], ...]
    kv_heads: int
    heads_per_kv: int
    dim: int
    block_size: int
    window: int | None
    cap: float | None
    drop_old: bool
    seed: int
    fmt: KVFormat = "f32"


cases = st.builds(
    Case,
    lengths=st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 7, 31]), st.sampled_from([1, 2, 3, 7, 13])), min_size=1, max_size=4
    ).map(tuple),
    kv_heads=st.integers(1, 3),
    heads_per_kv=st.sampled_from([1, 2, 3, 4, 7]),
    dim=st.sampled_from([2, 6, 16, 70, 80]),
    block_size=st.sampled_from([1, 2, 3, 16]),
    window=st.sampled_from([None, 1, 2, 3, 7, 133]),
    cap=st.sampled_from([None, 50.0, 1.5]),
    drop_old=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    fmt=st.sampled_from(KV_FORMATS),
)


@drawn_cases(40)
@given(case=cases)
def test_attention_equals_one_query_at_a_time(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("window", [None, 1, 7, 132, 133, 134])
@pytest.mark.parametrize("fmt", KV_FORMATS)
def test_attention_of_a_long_sequence(fmt: KVFormat, window: int | None) -> None:
    check(Case(((133, 3), (0, 133)), 2, 2, 6, 16, window, None, True, 1, fmt))


@pytest.mark.parametrize("shape", [(1, 4, 256), (1, 8, 64), (2, 33, 16), (4, 2, 128), (3, 1, 142)])
@pytest.mark.parametrize("fmt", KV_FORMATS)
def test_attention_of_wide_heads_and_of_many_that_share_keys(fmt: KVFormat, shape: tuple[int, int, int]) -> None:
    kv_heads, heads_per_kv, dim = shape
    check(Case(((30, 5), (0, 9), (63, 2), (64, 1)), kv_heads, heads_per_kv, dim, 16, 33, None, True, 1, fmt))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("fmt", KV_FORMATS)
@pytest.mark.parametrize("dim", [2, 22, 70, 256])
def test_keys_and_values_are_rounded_to_the_type_of_the_cache(name: str, fmt: KVFormat, dim: int) -> None:
    ops = shared_kernels(name, 2)
    k, v = numbers(1, 9, 3, dim), numbers(2, 9, 3, dim) * np.float32(1e3)
    k[0, 0], v[1, 2], v[2, 1, :-1] = 0, 1e-38, 0  # zeros; tiny numbers; one number alone
    k[3, 0, 0] = np.float32(1.00390625)  # half-way between two bfloat16: to even
    cache = ops.new_kv(2, 4, 3, 3, dim, fmt)
    Heads.of(ops, 3, 3, dim).run(k, k, v, cache, 1, [AttentionRow(0, 9, 9, 0, [2, 0, 3])])
    for found, exact, group in zip(widened(cache), (k, v), (KEY_GROUP, dim), strict=True):
        assert same_bits(found[1][[2, 0, 3]].reshape(exact.shape), rounded(exact, fmt, group))
        assert not np.count_nonzero(found[0])


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("fmt", KV_FORMATS)
def test_a_copied_block_gives_the_attention_of_its_source_and_leaves_the_others(name: str, fmt: KVFormat) -> None:
    ops, n, dim = shared_kernels(name, 2), 7, 40
    q, k, v = numbers(1, n, 3, dim), numbers(2, n, 3, dim), numbers(3, n, 3, dim)
    cache = ops.new_kv(2, 5, 4, 3, dim, fmt)
    for layer in (0, 1):
        Heads.of(ops, 3, 3, dim).run(q, k + layer, v, cache, layer, [AttentionRow(0, n, n, 0, [2, 0])])
    before = [array.copy() for array in widened(cache)]
    ops.copy_kv_block(cache, 0, 3)
    for found, old in zip(widened(cache), before, strict=True):
        assert same_bits(found[:, 3], old[:, 0])
        assert np.count_nonzero(found[:, 3])
        assert same_bits(found[:, [0, 1, 2, 4]], old[:, [0, 1, 2, 4]])


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("fmt", ["bf16", "int8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_key_that_is_not_finite_affects_only_queries_that_see_it(name: str, fmt: KVFormat, bad: float) -> None:
    ops, n = shared_kernels(name, 2), 20
    q, k, v = numbers(1, 2 * n, 2, 16), numbers(2, 2 * n, 2, 16), numbers(3, 2 * n, 2, 16)
    rows = [AttentionRow(0, n, n, 0, [1, 3]), AttentionRow(n, 2 * n, n, 0, [0, 2])]

    def attend(k: F32, v: F32) -> F32:
        with np.errstate(invalid="ignore"):
            return Heads.of(ops, 2, 2, 16).run(q, k, v, ops.new_kv(1, 4, 16, 2, 16, fmt), 0, rows)

    clean, spoilt_key, spoilt_value = attend(k, v), k.copy(), v.copy()
    spoilt_key[7, 1, 5] = spoilt_value[7, 1, 5] = bad
    for out in (attend(spoilt_key, v), attend(k, spoilt_value)):
        assert not np.isfinite(out[7:n, 1]).all(axis=-1).any()
        assert same_bits(out[:7], clean[:7])
        assert same_bits(out[n:], clean[n:])


@pytest.mark.parametrize("name", BACKENDS)
def test_scores_whose_exponentials_no_float_holds_are_weighed(name: str) -> None:
    """float32 holds exp(x) for x from -87 to 88. Here most queries have scores above, and those of head 0 are below."""
    ops, n, scale = shared_kernels(name, 2), 40, 30.0
    q, k, v = numbers(1, n, 4, 16), numbers(2, n, 4, 16), numbers(3, n, 4, 16)
    q[:, 0], k[:, 0] = np.abs(q[:, 0]), -np.abs(k[:, 0])
    heads = Heads.of(ops, 4, 4, 16, scale=scale)
    out = heads.run(q, k, v, ops.new_kv(1, 3, 16, 4, 16), 0, [AttentionRow(0, n, n, 0, [2, 0, 1])])
    for token, head in np.ndindex(n, 4):
        exact = float64_reference.attend(
            q[token, head], token, k[:, head], v[:, head], scale=scale, window=None, cap=None
        )
        np.testing.assert_allclose(out[token, head], exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", KERNELS)
def test_the_weight_of_a_key_is_as_exact_as_an_exponential_in_float32(name: str) -> None:
    """Two keys with the scores x and 0, and the values 1 and 0: the result is exp(x) / (exp(x) + 1)."""
    ops, scores = shared_kernels(name, 2), np.linspace(-80, 0, 1025, dtype=np.float32)
    n = len(scores)
    zeros, cache = np.zeros((n, 1, 2), np.float32), ops.new_kv(1, n, 2, 1, 2)
    q = zeros.copy()
    q[:, 0, 0] = scores
    cache.keys[0, :, 0, 0, 0] = cache.values[0, :, 0, 0, 0] = 1
    rows = [AttentionRow(i, i + 1, 2, 0, [i]) for i in range(n)]
    out = Heads.of(ops, 1, 1, 2, scale=1.0).run(q, zeros, zeros, cache, 0, rows)[:, 0, 0]
    e = np.exp(scores.astype(np.float64))
    np.testing.assert_allclose(out, e / (e + 1), rtol=5e-7)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("heads_per_kv", "chunk", "window"),
    [
        *((4, chunk, window) for chunk, window in ((1, None), (5, 31), (33, None), (64, 1), (50, 32), (97, 45))),
        *((heads, 50, 32) for heads in (1, 2, 3, 7, 33)),
    ],
)
def test_a_long_prompt_in_odd_chunks_has_the_same_bits_as_whole(
    name: str, heads_per_kv: int, chunk: int, window: int | None
) -> None:
    """`chunk` 1 is decode: a sequence's queries come one by one. More sequences and threads give smaller pieces."""
    for fmt in KV_FORMATS:
        case = Attention((97, 31, 66), chunk, 1, heads_per_kv, 22, 16, window, None, 7, fmt)
        check_attention(shared_kernels(name, 3), shared_kernels(name, 1), case)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    ("heads_per_kv", "window", "poison"),
    [
        *((4, None, poison) for poison in (np.nan, np.inf, -np.inf)),
        *((3, 5, poison) for poison in (np.nan, np.inf, -np.inf)),
        (1, None, np.nan),
        (1, 33, np.inf),
        (4, 33, np.nan),
        (4, 1, np.inf),
    ],
)
def test_keys_outside_a_querys_reach_change_no_bit(
    name: str, heads_per_kv: int, window: int | None, poison: float
) -> None:
    """Later keys of the same chunk, and keys that fell out of the window, next to queries that do see them."""
    n, first = 71, 29  # the chunk begins at `first`
    ops = shared_kernels(name, 1)
    q, keys, values = numbers(1, n - first, 2 * heads_per_kv, 22), numbers(2, n, 2, 22), numbers(3, n, 2, 22)

    heads = Heads.of(ops, 2 * heads_per_kv, 2, 22, window=window)

    def attend(keys: F32, values: F32) -> F32:
        cache = ops.new_kv(1, 5, 16, 2, 22)
        for ours, theirs in ((cache.keys, keys), (cache.values, values)):
            ours.reshape(-1, 2, 22)[:n] = theirs
        return heads.over(q, cache, 0, [AttentionRow(0, n - first, n, 0, list(range(5)))])

    clean = attend(keys, values)
    assert np.isfinite(clean).all()
    for position in range(first, n):
        unseen = np.arange(n) > position
        if window is not None:
            unseen |= np.arange(n) <= position - window
        hidden = np.where(unseen[:, None, None], np.float32(poison), np.stack([keys, values]))
        with np.errstate(invalid="ignore"):  # of the queries that do see them, in NumPy
            poisoned = attend(*hidden)
        assert same_bits(poisoned[position - first], clean[position - first]), f"position {position}"


def check(case: Case) -> None:
    """Every backend over the same cache, laid out as the case says, against one query at a time."""
    rng = np.random.default_rng(case.seed)
    total = [before + new for before, new in case.lengths]
    num_blocks = sum(-(-n // case.block_size) for n in total) + 2
    shape = (3, num_blocks, case.block_size, case.kv_heads, case.dim)
    cached_keys, cached_values = np.full(
        (2, *shape), np.nan, np.float32
    )  # slots that were not written must not be read
    free = rng.permutation(num_blocks).tolist()
    layer, scale, num_heads = 1, 0.3, case.kv_heads * case.heads_per_kv
    q = rng.standard_normal((sum(new for _, new in case.lengths), num_heads, case.dim)).astype(np.float32)
    rows, exact, start = [], np.empty(q.shape), 0
    for (before, new), length in zip(case.lengths, total, strict=True):
        keys = rng.standard_normal((length, case.kv_heads, case.dim)).astype(np.float32)
        values = rng.standard_normal((length, case.kv_heads, case.dim)).astype(np.float32)
        first_key = 0
        if case.drop_old and case.window is not None:
            first_key = max(0, before - case.window + 1) // case.block_size * case.block_size
        count = -(-length // case.block_size) - first_key // case.block_size
        table = [free.pop() for _ in range(count)]
        positions = range(first_key, length)
        slots = [table[(p - first_key) // case.block_size] * case.block_size + p % case.block_size for p in positions]
        cached_keys[layer].reshape(-1, case.kv_heads, case.dim)[slots] = keys[first_key:]
        cached_values[layer].reshape(-1, case.kv_heads, case.dim)[slots] = values[first_key:]
        keys, values = rounded(keys, case.fmt, KEY_GROUP), rounded(values, case.fmt, case.dim)
        rows.append(AttentionRow(start, start + new, length, first_key, table))
        for index, head in np.ndindex(new, num_heads):
            own_keys, own_values = keys[:, head // case.heads_per_kv], values[:, head // case.heads_per_kv]
            exact[start + index, head] = float64_reference.attend(
                q[start + index, head], before + index, own_keys, own_values,
                scale=scale, window=case.window, cap=case.cap,
            )  # fmt: skip
        start += new
    for name in BACKENDS:
        ops = shared_kernels(name, 2)
        cache = ops.new_kv(*shape, case.fmt)
        fill(cache, ..., cached_keys, cached_values)
        heads = Heads.of(ops, num_heads, case.kv_heads, case.dim, scale=scale, window=case.window, cap=case.cap)
        out = heads.over(q, cache, layer, rows)
        assert out.dtype == np.float32
        assert out.shape == q.shape
        # A capped score has the absolute error of cap · tanh.
        assert np.abs(out - exact).max() <= (1e-5 if case.cap is None else 3e-5), name
