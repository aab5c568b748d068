"""Paged attention against one query at a time over keys that lie in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from intaglio.ops import AttentionRow
from intaglio.ops.reference import ReferenceOps
from tests.ops import naive

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


cases = st.builds(
    Case,
    lengths=st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 7, 31]), st.sampled_from([1, 2, 3, 7, 13])), min_size=1, max_size=4
    ).map(tuple),
    kv_heads=st.integers(1, 3),
    heads_per_kv=st.integers(1, 3),
    dim=st.sampled_from([2, 6, 32]),
    block_size=st.sampled_from([1, 2, 3, 16]),
    window=st.sampled_from([None, 1, 2, 3, 7, 133]),
    cap=st.sampled_from([None, 50.0, 1.5]),
    drop_old=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_attention_equals_one_query_at_a_time(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("window", [None, 1, 7, 132, 133, 134])
def test_attention_of_a_long_sequence(window: int | None) -> None:
    check(Case(((133, 3), (0, 133)), 2, 2, 6, 16, window, None, True, 1))


def check(case: Case) -> None:
    ops, rng = ReferenceOps(), np.random.default_rng(case.seed)
    total = [before + new for before, new in case.lengths]
    num_blocks = sum(-(-n // case.block_size) for n in total) + 2
    cache = ops.new_kv(3, num_blocks, case.block_size, case.kv_heads, case.dim)
    cache.keys[:], cache.values[:] = np.nan, np.nan  # what nobody wrote must not be looked at
    free = rng.permutation(num_blocks).tolist()
    layer, scale = 1, 0.3
    q = rng.standard_normal((sum(new for _, new in case.lengths), case.kv_heads * case.heads_per_kv, case.dim)).astype(
        np.float32
    )
    rows, written, start = [], [], 0
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
        ops.write_kv(cache, layer, keys[first_key:], values[first_key:], ops.integers(slots))
        rows.append(AttentionRow(start, start + new, length, first_key, ops.integers(table)))
        written.append((keys, values))
        start += new
    out = ops.attention(q, cache, layer, rows, scale, case.window, case.cap)
    assert out.dtype == np.float32
    assert out.shape == q.shape
    for row, (keys, values) in zip(rows, written, strict=True):
        for index in range(row.start, row.stop):
            position = row.context - (row.stop - index)
            for head in range(q.shape[1]):
                kv_head = head // case.heads_per_kv
                exact = naive.attend(
                    q[index, head],
                    position,
                    keys[:, kv_head],
                    values[:, kv_head],
                    scale=scale,
                    window=case.window,
                    cap=case.cap,
                )
                assert np.abs(out[index, head] - exact).max() <= 1e-5


def test_write_kv_touches_its_slots_of_its_layer_only() -> None:
    ops = ReferenceOps()
    cache = ops.new_kv(2, 3, 4, 1, 2)
    keys = np.arange(1, 5, dtype=np.float32).reshape(2, 1, 2)
    ops.write_kv(cache, 1, keys, keys + 10, ops.integers([9, 2]))
    assert np.array_equal(cache.keys[1, 2, 1], keys[0])
    assert np.array_equal(cache.keys[1, 0, 2], keys[1])
    assert np.array_equal(cache.values[1, 2, 1], keys[0] + 10)
    assert np.count_nonzero(cache.keys) == 4
    assert np.count_nonzero(cache.values) == 4
