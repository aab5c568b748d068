"""What a product with a quantized matrix is, in float64: operands rounded by the letter of docs/kernels.md, exact sums.

The rounding of weights and activations is on both sides of such a comparison. What remains is the float32 rounding of
the kernel's own sums, and `roundings` says how much that may be.
"""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from intaglio.ops import GROUP, Ops, QuantizedMatrix

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

QUANTIZED: tuple[Literal["w8"], Literal["w5"], Literal["w4"]] = ("w8", "w5", "w4")
KINDS = (*QUANTIZED, "w5 without minima", "w4 without minima")


def random_matrix(kind: str, out: int, inputs: int, seed: int = 0) -> QuantizedMatrix:
    """Every byte and nibble comes up, -128 too; scales of either sign, as Q4_0 files have them, and some of zero."""
    rng, groups = np.random.default_rng(seed), -(-inputs // GROUP)
    scales = (rng.standard_normal((out, groups)) * 0.05).astype(np.float16)
    scales[rng.random((out, groups)) < 0.05] = 0
    if kind == "w8":
        return QuantizedMatrix("w8", rng.integers(-128, 128, (out, inputs), dtype=np.int8), scales)
    fmt: Literal["w5", "w4"] = "w5" if kind.startswith("w5") else "w4"
    values = rng.integers(0, 32 if fmt == "w5" else 16, (out, inputs), dtype=np.uint8)
    if "without" in kind:
        return QuantizedMatrix(fmt, values, scales)
    return QuantizedMatrix(fmt, values, scales, (rng.standard_normal((out, groups)) * 0.4).astype(np.float16))


def rounded_activations(x: F32) -> F64:
    """[rows, in]: each group of 32 inputs in 127 steps of its largest magnitude, as values again."""
    rows, inputs = x.shape
    groups = np.pad(x, ((0, 0), (0, -inputs % GROUP))).reshape(rows, -1, GROUP)
    largest = np.abs(groups).max(axis=2, keepdims=True)
    tiny = largest < 1e-36
    inverse = np.float32(127) / np.where(tiny, np.float32(1), largest)
    whole = np.where(tiny, 0, np.rint(groups * inverse))
    values = whole.astype(np.float64) * (largest / np.float32(127)).astype(np.float64)
    kept: NDArray[np.float64] = values.reshape(rows, -1)[:, :inputs]
    return kept


def rows_of(matrix: QuantizedMatrix, rows: slice | NDArray[np.integer[Any]]) -> QuantizedMatrix:
    """The same matrix with some of its outputs."""
    minima = None if matrix.minima is None else matrix.minima[rows]
    return QuantizedMatrix(matrix.fmt, matrix.values[rows], matrix.scales[rows], minima)


def values_of(matrix: QuantizedMatrix) -> F64:
    """[out, in] float64: what the matrix stands for."""

    def per_input(numbers: NDArray[np.float16]) -> F64:
        return np.repeat(numbers.astype(np.float64), GROUP, axis=1)[:, : matrix.shape[1]]

    centre = {"w8": 0, "w5": 16, "w4": 8}[matrix.fmt] if matrix.minima is None else 0
    values: NDArray[np.float64] = (matrix.values.astype(np.float64) - centre) * per_input(matrix.scales)
    return values if matrix.minima is None else values - per_input(matrix.minima)


def magnitude_of(matrix: QuantizedMatrix) -> F64:
    """[out, in]: the size of the terms a kernel adds; w4 takes a minimum off that may cancel nearly everything."""
    if matrix.minima is None:
        return np.abs(values_of(matrix))
    positive = QuantizedMatrix(matrix.fmt, matrix.values, np.abs(matrix.scales), -np.abs(matrix.minima))
    return values_of(positive)


def bfloat16_weights(matrix: QuantizedMatrix) -> F64:
    """[out, in]: what the matrix tiles multiply with; see csrc/kernels/amx_matmul.h."""

    def per_input(numbers: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.repeat(numbers, GROUP, axis=1)[:, : matrix.shape[1]]

    def exponents(numbers: NDArray[np.float16]) -> NDArray[np.int64]:
        largest = np.abs(numbers).view(np.uint16).max(axis=1, keepdims=True) >> 10
        normal: NDArray[np.int64] = np.maximum(largest, 1).astype(np.int64)
        return normal

    # Per output, the power of two that moves its largest scale to [2^-9, 2^-8), unless that moves a minimum too far.
    places = 30 - exponents(matrix.scales)
    if matrix.minima is not None:
        places = np.minimum(places, 54 - exponents(matrix.minima))
    power = 2.0 ** (places - 24)
    scales = matrix.scales.astype(np.float64) * power
    less = scales * matrix.centre if matrix.minima is None else matrix.minima.astype(np.float64) * power
    # int8 is stored + 128, so that w8 has a centre too; its product is rounded only where it is next to zero.
    bytes_, centre = matrix.values.astype(np.float64), 0.0
    if matrix.fmt == "w8":
        bytes_, centre = bytes_ + 128, 128.0
    offset = (less + scales * centre).astype(np.float16).astype(np.float64)
    halves = (bytes_ * per_input(scales) - per_input(offset)).astype(np.float16)
    magnitude = (halves.view(np.uint16) & 0x7FFF).astype(np.int64) + 4 >> 3  # half away from zero, to 8 bits
    magnitude[magnitude < 1 << 7] = 0  # a bfloat16 that would be denormal
    values = (magnitude << 3).astype(np.uint16).view(np.float16).astype(np.float64) * np.where(halves < 0, -1, 1)
    exact: NDArray[np.float64] = values / power
    return exact


def bfloat16_activations(x: F32) -> F64:
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


UNIT_ROUNDOFF = 2.0**-24  # what rounding to float32 changes at most, of the number itself


def roundings(matrix: QuantizedMatrix, *, on_tiles: bool) -> float:
    """How many unit roundoffs of the sum of its terms' magnitudes a product may be off, on any machine.

    int8          The sum of a group is exact. Of each group four roundings follow at most (offset, scale, activation's
                  scale, and one more without FMA), each of no more than the group's terms; then it is added to the sum
                  of the groups before, a rounding of no more than all terms. This holds for any order and any numbers.
    matrix tiles  Each input is an addition, so that the same reasoning gives as many roundings as there are inputs; but
                  they are as often up as down. With all terms of one sign, the worst case, the standard deviation of
                  their sum is a third of the root of their number. Six of these, and 34 at least: of few inputs,
                  where roundings may repeat each other, that is as many as there are.
    """
    groups, inputs = int(matrix.scales.shape[1]), matrix.shape[1]
    return max(2 * inputs**0.5, 34) if on_tiles else groups + 5


def assert_is_product(
    ours: F32, x: F32, matrix: QuantizedMatrix, more: F64 | float = 0.0, *, kernels: Ops | None = None
) -> None:
    """Every element is the exact sum but for `roundings`.

    more     what an adapter adds: the roundings of its own sums are counted as its inputs
    kernels  whose product it is: matrix tiles multiply bfloat16, all others int8
    """
    on_tiles = kernels is not None and kernels.name == "amx"
    if on_tiles:
        rounded, weights = bfloat16_activations(x), bfloat16_weights(matrix)
    else:
        rounded, weights = rounded_activations(x), values_of(matrix)
    exact = rounded @ weights.T + more
    terms = np.abs(rounded) @ magnitude_of(matrix).T + np.abs(more)
    count = roundings(matrix, on_tiles=on_tiles) + (0 if isinstance(more, float) else matrix.shape[1])
    assert ours.dtype == np.float32
    assert ours.shape == exact.shape
    assert (np.abs(ours - exact) <= count * UNIT_ROUNDOFF * terms + 1e-35).all()
