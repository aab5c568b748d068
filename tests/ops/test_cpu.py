"""What only the C++ backend has: quantized matrices, instruction sets, threads, and numbers that lead kernels
astray.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from intaglio.errors import SettingsError
from intaglio.ops import LoraPair, LoraSegment, Ops, QuantizedMatrix
from intaglio.ops.cpu import CpuOps, instruction_sets
from intaglio.ops.reference import ReferenceOps
from intaglio.ops.reference.weight import dequantized
from tests.helpers.drawn_cases import drawn_cases
from tests.ops.backends import KERNELS, SIZES, adapter_weights, shared_kernels
from tests.ops.fused_op_parts import add_norms, gelu_gate
from tests.ops.quantized import (
    KINDS,
    UNIT_ROUNDOFF,
    assert_is_product,
    magnitude_of,
    random_matrix,
    rounded_activations,
    roundings,
    values_of,
)

F32 = NDArray[np.float32]

formats = pytest.mark.parametrize("fmt", KINDS)


def numbers(seed: int, *shape: int) -> F32:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def product(ops: Ops, x: F32, matrix: QuantizedMatrix) -> F32:
    (out,) = ops.linears(x, [ops.quantized_weight(matrix)])
    return np.asarray(out)


# -------------------------------------------------------------------------------------------------- quantized products


@formats
@pytest.mark.parametrize(
    ("rows", "out", "inputs"),
    [
        *((rows, 17, 33) for rows in (*SIZES, 8, 9, 15)),
        *((15, out, inputs) for out, inputs in ((1, 1), (7, 31), (16, 32), (133, 133), (15, 640))),
    ],
)
def test_quantized_products_are_exact_over_the_rounded_values(
    kernels: CpuOps, fmt: str, rows: int, out: int, inputs: int
) -> None:
    x, matrix = numbers(1, rows, inputs), random_matrix(fmt, out, inputs)
    assert_is_product(product(kernels, x, matrix), x, matrix, kernels=kernels)


@pytest.mark.parametrize("name", KERNELS)
@drawn_cases(60)
@given(
    fmt=st.sampled_from(KINDS),
    rows=st.integers(1, 20),
    out=st.integers(1, 70),
    inputs=st.integers(1, 200),
    magnitude=st.sampled_from([1e-20, 1e-3, 1.0, 1e20]),
    seed=st.integers(0, 2**32 - 1),
)
def test_quantized_products_of_any_shape(
    name: str, fmt: str, rows: int, out: int, inputs: int, magnitude: float, seed: int
) -> None:
    x, matrix = numbers(seed, rows, inputs) * np.float32(magnitude), random_matrix(fmt, out, inputs, seed)
    kernels = shared_kernels(name, 2)
    assert_is_product(product(kernels, x, matrix), x, matrix, kernels=kernels)


@formats
@pytest.mark.parametrize("rows", [1, 2, 4, 8, 15])
def test_sums_of_whole_numbers_are_exact_on_every_instruction_set(kernels: CpuOps, fmt: str, rows: int) -> None:
    """With scales of one nothing is rounded anywhere, so a dot product that is off by one shows, saturation too."""
    rng = np.random.default_rng(rows)
    x = rng.integers(-127, 128, (rows, 96)).astype(np.float32)
    x[:, ::32] = 127  # the largest of its group, so that a step is 1
    ones = np.ones((21, 3), np.float16)
    if fmt == "w8":
        values = rng.choice(np.array([-128, -127, -1, 0, 127], np.int8), (21, 96))
        values[0], values[1] = -128, 127
        matrix = QuantizedMatrix("w8", values, ones)
    else:
        most = 31 if fmt.startswith("w5") else 15
        small = rng.integers(0, most + 1, (21, 96), dtype=np.uint8)
        small[0] = most
        minima = None if "without" in fmt else np.round(rng.standard_normal((21, 3)) * 5).astype(np.float16)
        matrix = QuantizedMatrix("w5" if most == 31 else "w4", small, ones, minima)
    x[0] = 127 * np.where(np.arange(96) % 2, 1, -1)
    x[-1] = 127
    assert np.array_equal(product(kernels, x, matrix), x.astype(np.float64) @ values_of(matrix).T)


@formats
def test_adapters_add_to_quantized_products_in_float32(kernels: CpuOps, fmt: str) -> None:
    x, first, second = numbers(1, 13, 70), random_matrix(fmt, 37, 70), random_matrix(fmt, 5, 70, seed=2)
    one, three = LoraPair(numbers(4, 1, 70), numbers(5, 37, 1)), LoraPair(numbers(6, 3, 70), numbers(7, 5, 3))
    weights = [kernels.quantized_weight(first), kernels.quantized_weight(second)]
    adapters = [adapter_weights(kernels, [pairs]) for pairs in ((one, three), (None, three), (one, None))]
    segments = [LoraSegment(1, 2, adapters[0]), LoraSegment(2, 9, adapters[1]), LoraSegment(11, 13, adapters[2])]
    ours = kernels.linears(x, weights, kernels.lora_plan(segments))
    added_first, added_second = np.zeros((13, 37)), np.zeros((13, 5))
    for rows in (slice(1, 2), slice(11, 13)):
        added_first[rows] = x[rows].astype(float) @ one.a.T.astype(float) @ one.b.T.astype(float)
    added_second[1:9] = x[1:9].astype(float) @ three.a.T.astype(float) @ three.b.T.astype(float)
    assert_is_product(ours[0], x, first, added_first, kernels=kernels)
    assert_is_product(ours[1], x, second, added_second, kernels=kernels)


@pytest.mark.parametrize("dtype", [np.float16, np.int8])
@pytest.mark.parametrize(
    ("rows", "inputs"), [*((rows, 33) for rows in (1, 2, 3, 7)), *((7, inputs) for inputs in (1, 15, 16, 640))]
)
def test_an_adapter_of_small_numbers_is_the_same_adapter_in_float32(
    kernels: CpuOps, dtype: type[np.number[Any]], inputs: int, rows: int
) -> None:
    """They widen without loss, so the bits are the same; so is the scale of each rank in any type."""
    x, plain, rank, out = numbers(1, rows, inputs), numbers(2, 37, inputs), 5, 37
    a, b = ((numbers(seed, *shape) * 40).astype(dtype) for seed, shape in ((3, (rank, inputs)), (4, (out, rank))))
    scale = np.array([0.25, -1.5, 0.0, 3e-4, 7.0], np.float32) / 1600
    weight = kernels.weight(plain, "f32")
    results = []
    for one in (dtype, np.float32):
        adapter = adapter_weights(kernels, [[LoraPair(a.astype(one), b.astype(one), scale)]])
        plan = kernels.lora_plan([LoraSegment(0, rows, adapter)])
        results.append(kernels.linears(x, [weight], plan)[0])
    assert np.array_equal(results[0], results[1])
    exact = x.astype(float) @ plain.T.astype(float) + (x.astype(float) @ a.T.astype(float) * scale) @ b.T.astype(float)
    np.testing.assert_allclose(results[0], exact, rtol=0, atol=2e-3)
    ops = ReferenceOps()
    plan = ops.lora_plan([LoraSegment(0, rows, adapter_weights(ops, [[LoraPair(a, b, scale)]]))])
    (reference,) = ops.linears(x, [ops.weight(plain, "f32")], plan)
    np.testing.assert_allclose(reference, exact, rtol=0, atol=2e-3)


def test_matrices_of_different_formats_share_one_linears_call(kernels: CpuOps) -> None:
    x, plain = numbers(1, 3, 70), numbers(2, 5, 70)
    eight, four = random_matrix("w8", 17, 70), random_matrix("w4", 33, 70)
    weights = [kernels.quantized_weight(eight), kernels.weight(plain, "f32"), kernels.quantized_weight(four)]
    first, second, third = kernels.linears(x, weights)
    assert_is_product(first, x, eight, kernels=kernels)
    np.testing.assert_allclose(second, x.astype(float) @ plain.T.astype(float), rtol=0, atol=1e-5)
    assert_is_product(third, x, four, kernels=kernels)


@formats
@pytest.mark.parametrize(("out", "inputs"), [(1, 1), (17, 33), (133, 70)])
def test_embedding_takes_rows_of_a_quantized_table(kernels: CpuOps, fmt: str, out: int, inputs: int) -> None:
    matrix, ids = random_matrix(fmt, out, inputs), [out - 1, 0, out // 2, 0]
    rows = kernels.embedding(kernels.quantized_weight(matrix), kernels.integers(ids), 2.5)
    expected = dequantized(matrix)[ids] * np.float32(2.5)
    np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=1e-7)


@formats
def test_instruction_sets_differ_by_no_more_than_rounding(fmt: str) -> None:
    """Of sums of the same terms, each off by its own roundings: of 640 inputs in sixteen lanes, and of groups."""
    x, matrix, plain = numbers(1, 5, 640), random_matrix(fmt, 133, 640), numbers(3, 133, 640)
    every = [
        (product(ops, x, matrix), *ops.linears(x, [ops.weight(plain, "f32"), ops.weight(plain, "bf16")]))
        for ops in (CpuOps(1, name) for name in instruction_sets() if name != "amx")  # which multiplies bfloat16
    ]
    of_lanes = (640 // 16 * 2 + 5) * np.abs(x).astype(float) @ np.abs(plain).T  # two of each without FMA; adding lanes
    terms = np.abs(rounded_activations(x)) @ magnitude_of(matrix).T
    limits = [roundings(matrix, on_tiles=False) * terms, of_lanes, of_lanes * 1.01]  # bfloat16 may be larger
    for other in every[1:]:
        for ours, theirs, limit in zip(other, every[0], limits, strict=True):
            assert (np.abs(ours - theirs) <= 2 * UNIT_ROUNDOFF * limit).all()


@formats
def test_no_rows_give_no_rows(kernels: CpuOps, fmt: str) -> None:
    """A chunk of a prompt that is not its last one asks for no logits."""
    assert product(kernels, np.empty((0, 70), np.float32), random_matrix(fmt, 37, 70)).shape == (0, 37)


@formats
@pytest.mark.parametrize(
    ("name", "rows"),
    [(name, rows) for name in KERNELS for rows in ((16, 17, 31, 32, 33, 64, 65, 100) if name == "amx" else (33,))],
)
def test_rows_have_the_bits_that_they_have_alone_around_the_edges_of_matrix_tiles(
    name: str, fmt: str, rows: int
) -> None:
    kernels = shared_kernels(name, 2)
    x, matrix = numbers(1, rows, 133), random_matrix(fmt, 69, 133)
    weight = kernels.quantized_weight(matrix)
    (together,) = kernels.linears(x, [weight])
    alone = np.concatenate([kernels.linears(x[row : row + 1], [weight])[0] for row in range(rows)])
    assert np.array_equal(together, alone)
    assert_is_product(together, x, matrix, kernels=kernels)


@formats
def test_packed_arrays_give_the_same_weight_again_on_every_instruction_set(fmt: str) -> None:
    x, matrix = numbers(1, 3, 70), random_matrix(fmt, 37, 70)
    best, *_ = every = [CpuOps(1, name) for name in instruction_sets()]
    arrays = best.packed_arrays(best.quantized_weight(matrix))
    for ops in every:
        for array in arrays.values():
            array.flags.writeable = False  # as in a file mapped for reading
        (again,) = ops.linears(x, [ops.packed_weight(matrix.fmt, matrix.shape, arrays)])
        assert np.array_equal(again, product(ops, x, matrix))


def test_the_reference_backend_multiplies_by_the_dequantized_values() -> None:
    for fmt in KINDS:
        x, matrix = numbers(1, 7, 70), random_matrix(fmt, 37, 70)
        np.testing.assert_allclose(product(ReferenceOps(), x, matrix), x @ values_of(matrix).T, rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------------------------------ extreme numbers


@formats
def test_constant_rows_of_any_size_are_right(kernels: CpuOps, fmt: str) -> None:
    values = np.array([[0.0], [1e30], [-1e35], [1e-30], [1e-36], [1e-38], [1e-45]], np.float32)
    x, matrix = np.repeat(values, 70, axis=1), random_matrix(fmt, 17, 70)
    ours = product(kernels, x, matrix)
    assert np.isfinite(ours).all()
    assert_is_product(ours, x, matrix, kernels=kernels)


@pytest.mark.parametrize("fmt", ["w5", "w4"])
@pytest.mark.parametrize("scale", [0.0, 2.0**-24, 1e-3])
def test_minima_that_are_much_larger_than_their_scales_are_kept(
    kernels: CpuOps, fmt: Literal["w5", "w4"], scale: float
) -> None:
    """A row of one constant is stored so. In half precision the minimum must not become an infinity on its way."""
    x, numbers_ = numbers(1, 5, 70), np.full((17, 70), 3, np.uint8)
    matrix = QuantizedMatrix(fmt, numbers_, np.full((17, 3), scale, np.float16), np.full((17, 3), 4096, np.float16))
    ours = product(kernels, x, matrix)
    assert_is_product(ours, x, matrix, kernels=kernels)
    np.testing.assert_allclose(ours, x.astype(float) @ values_of(matrix).T, rtol=0, atol=0.25 * 4096)


@formats
def test_a_group_of_zeros_beside_large_numbers_stays_zero(kernels: CpuOps, fmt: str) -> None:
    x, matrix = np.zeros((2, 96), np.float32), random_matrix(fmt, 17, 96)
    x[0, 40], x[1, :32], x[1, 64:] = 1e30, 1e-40, 5
    assert_is_product(product(kernels, x, matrix), x, matrix, kernels=kernels)


@pytest.mark.parametrize("fmt", [*KINDS, "f32", "bf16"])
@pytest.mark.parametrize(
    ("bad", "place"), [(np.nan, 0), (np.inf, 31), (-np.inf, 33), (np.nan, 69), (np.inf, 69)], ids=str
)
def test_a_row_that_is_not_finite_stays_so_and_changes_no_other_row(
    kernels: CpuOps, fmt: str, bad: float, place: int
) -> None:
    plain = numbers(2, 17, 70)
    weight = (
        kernels.quantized_weight(random_matrix(fmt, 17, 70)) if fmt in KINDS else kernels.weight(plain, fmt)  # type: ignore[arg-type]
    )
    x = numbers(1, 11, 70)
    (before,) = kernels.linears(x, [weight])
    x[4, place] = bad
    (after,) = kernels.linears(x, [weight])
    others = np.arange(11) != 4
    assert np.array_equal(after[others], before[others])
    assert not np.isfinite(after[4]).any()


def test_nan_propagates_through_every_other_op(kernels: CpuOps) -> None:
    """If it were lost on the way, the text would be fluent and wrong instead of an error."""
    x = numbers(1, 3, 37)
    x[1, 5] = np.nan
    ones = np.ones(37, np.float32)
    for out in (kernels.rms_norm(x, ones, 1e-6), add_norms(kernels, ones + x, x, ones, ones)[1]):
        assert np.isnan(out[1]).all()
        assert np.isfinite(out[[0, 2]]).all()
    for out in (gelu_gate(kernels, x, np.ones_like(x)), gelu_gate(kernels, np.ones_like(x), x)):
        assert np.isnan(out[1, 5])
        assert np.isfinite(out[[0, 2]]).all()
    eye = kernels.weight(np.eye(37, dtype=np.float32), "f32")
    assert np.isnan(kernels.logits(x, eye, 30.0)[1]).any()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("last", [1, 8, 200])
@pytest.mark.parametrize("rank", [1, 8, 200])
def test_an_adapter_has_the_same_bits_in_preallocated_memory(name: str, last: int, rank: int) -> None:
    """The memory that waits is as large as the last adapter: too small, just right, or far too large."""
    kernels = CpuOps(2, name)
    x, matrix = numbers(1, 3, 640), kernels.weight(numbers(2, 1000, 640), "f32")

    def adapted(rank: int) -> NDArray[np.float32]:
        pair = LoraPair(numbers(3, rank, 640), numbers(4, 1000, rank))
        plan = kernels.lora_plan([LoraSegment(0, 3, adapter_weights(kernels, [[pair]]))])
        out: NDArray[np.float32] = kernels.linears(x, [matrix], plan)[0]
        return out

    fresh = adapted(rank)
    adapted(last)
    kernels.preallocate_adapter_memory()
    kernels.preallocate_adapter_memory()
    assert np.array_equal(adapted(rank), fresh)
    assert np.array_equal(adapted(rank), fresh)


def test_a_machine_without_memory_to_preallocate_works_without_it(
    kernels: CpuOps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rest` is called in the engine's loop, outside any request: what it raises would end the engine."""
    asked: list[int] = []

    def refuse(size: int) -> None:
        asked.append(size)
        raise MemoryError

    monkeypatch.setattr("intaglio.ops.cpu.backend.Pages", refuse)
    adapter_weights(kernels, [[LoraPair(numbers(3, 8, 640), numbers(4, 1000, 8))]])
    kernels.preallocate_adapter_memory()
    assert len(asked) == 1
    adapter_weights(kernels, [[LoraPair(numbers(3, 8, 640), numbers(4, 1000, 8))]])


# ------------------------------------------------------------------------------------------------- settings and threads


@pytest.mark.parametrize("threads", [0, -1, 257, 10_000])
def test_a_thread_count_out_of_range_is_refused_with_the_range(threads: int) -> None:
    with pytest.raises(SettingsError, match=f"threads is {threads}, outside 1 to 256"):
        CpuOps(threads)


def test_an_unavailable_instruction_set_is_refused_with_the_available_ones() -> None:
    with pytest.raises(SettingsError, match=r"'sse9'.*plain"):
        CpuOps(1, "sse9")


def test_the_best_instruction_set_is_the_default() -> None:
    every = instruction_sets()
    assert CpuOps(1).instruction_set == every[0]
    assert [CpuOps(1, name).instruction_set for name in every] == every
    assert every[-1] == "plain"


@formats
def test_python_threads_that_share_a_backend_do_not_disturb_each_other(kernels: CpuOps, fmt: str) -> None:
    inputs, matrix = [numbers(i, 1 + i, 256) for i in range(8)], random_matrix(fmt, 256, 256)
    weight = kernels.quantized_weight(matrix)
    expected = [kernels.linears(x, [weight])[0] for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            together = pool.map(lambda x: kernels.linears(x, [weight])[0], inputs)
            assert all(np.array_equal(ours, alone) for ours, alone in zip(together, expected, strict=True))
