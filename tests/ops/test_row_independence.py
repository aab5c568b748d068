"""Row independence of every backend, and verification that these checks notice backends without it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from intaglio.ops import AttentionRow, LoraPair, LoraSegment, SamplingRow
from intaglio.ops.cpu import CpuOps
from tests.ops.backends import BACKENDS, KERNELS, adapter_weights, backend, shared_kernels
from tests.ops.row_dependent_backends import SplitsTheSum, SplitsTheSumByThreads, StartsAtTheChunk
from tests.ops.row_independence import (
    F32,
    FORMATS,
    Attention,
    Projection,
    check_attention,
    check_linears,
    check_rows,
    numbers,
    roped,
    same_bits,
    weight,
)

names = pytest.mark.parametrize("name", BACKENDS)
kernel_names = pytest.mark.parametrize("name", KERNELS)
formats = st.sampled_from(FORMATS)

projections = st.builds(
    Projection,
    segments=st.lists(
        st.tuples(st.sampled_from([1, 2, 3, 7, 13]), st.sampled_from([0, 1, 2, 5, 16, 33])), min_size=1, max_size=5
    ).map(tuple),
    inputs=st.sampled_from([1, 7, 31, 33, 64, 133, 640]),
    outputs=st.tuples(st.sampled_from([1, 15, 17, 133]), st.sampled_from([2, 16, 40])),
    formats=st.tuples(formats, formats),
    seed=st.integers(0, 2**31),
)


@names
@settings(max_examples=25, deadline=None)
@given(threads=st.integers(1, 4), case=projections)
def test_a_projected_row_has_the_same_bits_in_any_batch(name: str, threads: int, case: Projection) -> None:
    check_linears(shared_kernels(name, threads), case)


@names
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_projected_row_has_the_same_bits_on_any_number_of_threads(name: str, fmt: str) -> None:
    # 300 rows of 4,000 inputs: more than one piece of rows (2^20 / inputs), and a shorter last one.
    x = numbers(1, 300, 4000)
    few = [0, 1, 255, 256, 299]
    for threads in (1, 3):
        ops = backend(name, threads)
        prepared = weight(ops, fmt, 19, 4000, 2)
        with threadpool_limits(threads, user_api="blas"):  # NumPy's own
            (together,) = ops.linears(x, [prepared])
        if threads == 1:
            expected = together
        assert same_bits(together, expected)
        for row in few:
            assert same_bits(ops.linears(x[row : row + 1], [prepared])[0][0], together[row])


@kernel_names
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_a_rank_of_an_adapter_has_the_same_bits_beside_any_others(name: str, dtype: type, rows: int) -> None:
    """Kernels take several ranks at once; with a one in B per rank, each output is the sum of one of them."""
    ops, inputs, most = shared_kernels(name, 2), 133, 9
    x, a, eye = numbers(1, rows, inputs), numbers(2, most, inputs).astype(dtype), np.eye(most, dtype=dtype)
    zeros = ops.weight(np.zeros((most, inputs), np.float32), "f32")

    def shrunk(ranks: slice) -> F32:
        adapter = adapter_weights(ops, [[LoraPair(a[ranks], eye[:, ranks], 0.25)]])
        (out,) = ops.linears(x, [zeros], ops.lora_plan([LoraSegment(0, rows, adapter)]))
        return np.asarray(out)[:, ranks]

    alone = np.concatenate([shrunk(slice(rank, rank + 1)) for rank in range(most)], axis=1)
    assert alone.all()
    for start in range(most):
        for stop in range(start + 1, most + 1):
            assert same_bits(shrunk(slice(start, stop)), alone[:, start:stop]), f"ranks {start} to {stop} together"


@kernel_names
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_an_output_of_an_adapter_has_the_same_bits_beside_any_others(name: str, dtype: type, rows: int) -> None:
    ops, inputs, rank, most = shared_kernels(name, 2), 33, 5, 133
    x, a, b = numbers(1, rows, inputs), numbers(2, rank, inputs).astype(dtype), numbers(3, most, rank).astype(dtype)
    plain = numbers(4, most, inputs)

    def expanded(outputs: slice) -> F32:
        adapter = adapter_weights(ops, [[LoraPair(a, b[outputs])]])
        plan = ops.lora_plan([LoraSegment(0, rows, adapter)])
        (out,) = ops.linears(x, [ops.weight(plain[outputs], "f32")], plan)
        return np.asarray(out)

    together = expanded(slice(None))
    for start in (0, 3, 16, 40, 132):
        for stop in range(start + 1, most + 1, 7):
            assert same_bits(expanded(slice(start, stop)), together[:, start:stop]), f"outputs {start} to {stop}"


attentions = st.builds(
    Attention,
    lengths=st.lists(st.sampled_from([1, 2, 7, 23, 40]), min_size=1, max_size=4).map(tuple),
    chunk=st.sampled_from([1, 2, 7, 16, 40]),
    kv_heads=st.integers(1, 2),
    heads_per_kv=st.sampled_from([1, 2, 3, 4, 7]),
    dim=st.sampled_from([6, 16, 70, 80]),
    block_size=st.sampled_from([1, 3, 16]),
    window=st.sampled_from([None, 1, 3, 8]),
    cap=st.sampled_from([None, 1.5]),
    seed=st.integers(0, 2**31),
)


@names
@settings(max_examples=25, deadline=None)
@given(threads=st.integers(1, 4), case=attentions)
def test_a_query_has_the_same_bits_however_its_prompt_is_cut(name: str, threads: int, case: Attention) -> None:
    check_attention(shared_kernels(name, threads), shared_kernels(name, 1), case)


@names
@settings(max_examples=8, deadline=None)
@given(
    threads=st.integers(1, 4),
    rows=st.sampled_from([1, 2, 3, 7, 40]),
    width=st.sampled_from([2, 7, 16, 37, 133]),
    seed=st.integers(0, 2**31),
)
def test_every_other_op_gives_a_row_the_same_bits_in_any_batch(
    name: str, threads: int, rows: int, width: int, seed: int
) -> None:
    check_rows(shared_kernels(name, threads), rows, width, seed)


@names
def test_a_position_has_the_same_angles_however_far_earlier_calls_went(name: str) -> None:
    x, positions = numbers(1, 7, 16), np.array([0, 5, 1023, 1024, 3000, 4095, 4096])
    at_once, in_steps = backend(name, 1), backend(name, 1)
    expected = roped(at_once, x, positions)
    for row in range(7):
        assert same_bits(roped(in_steps, x[row : row + 1], positions[row : row + 1])[0], expected[row])


@names
def test_a_sampled_token_is_the_same_on_any_number_of_threads(name: str) -> None:
    logits = numbers(1, 33, 3000) * np.float32(2)
    rows = [SamplingRow(1.3, 700, 0.95, 1.0, 0.0, 0.0, seed, seed % 5, (), ()) for seed in range(33)]
    alone = [backend(name, 1).sample(logits[i : i + 1].copy(), rows[i : i + 1], 3000)[0] for i in range(33)]
    for threads in (1, 2, 3, 4):
        assert backend(name, threads).sample(logits.copy(), rows, 3000) == alone


# -------------------------------------------------------------------------------------------------------------- mutants


@kernel_names
@pytest.mark.parametrize("fmt", FORMATS)
def test_the_check_fails_on_a_sum_that_is_split_when_there_are_several_rows(name: str, fmt: str) -> None:
    case = Projection(((3, 0), (2, 4)), 133, (17, 40), (fmt, fmt), 5)
    check_linears(CpuOps(2, name), case)
    with pytest.raises(AssertionError, match="differs from itself alone"):
        check_linears(SplitsTheSum(2, name), case)


@kernel_names
def test_the_check_fails_on_a_sum_that_is_split_between_threads(name: str) -> None:
    x = numbers(1, 5, 133)
    results = []
    for threads in (1, 2):
        ops = SplitsTheSumByThreads(threads, name)
        results.append(ops.linears(x, [weight(ops, "w8", 17, 133, 2)])[0])
    assert not same_bits(*results)


@kernel_names
def test_the_check_fails_on_attention_whose_sum_starts_at_the_chunk(name: str) -> None:
    case = Attention((23, 7), 5, 1, 2, 16, 3, 8, None, 5)
    check_attention(CpuOps(2, name), CpuOps(1, name), case)
    with pytest.raises(AssertionError, match="differs from the whole alone"):
        check_attention(StartsAtTheChunk(2, name), StartsAtTheChunk(1, name), case)


@kernel_names
def test_the_broken_attention_differs_in_its_last_bits_only(name: str) -> None:
    """So it is the order of the sum that the check saw, not a wrong result."""
    case = Attention((23, 7), 40, 1, 2, 16, 3, 8, 1.5, 5)
    q, k = numbers(1, 23, 2, 16), numbers(2, 23, 1, 16)
    outputs = []
    for ops in (CpuOps(1, name), StartsAtTheChunk(1, name)):
        cache = ops.new_kv(1, 23, 1, 1, 16)
        cache.keys[0, :, 0], cache.values[0, :, 0] = k, k
        rows = [AttentionRow(0, 13, 23, 0, list(range(23)))]
        outputs.append(case.on(ops).over(q[:13], cache, 0, rows))
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=0, atol=1e-5)
