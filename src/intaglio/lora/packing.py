"""Converts an adapter's matrices to the number type that the engine has in memory.

    float32   for a base that is not quantized: exactly the values of the digest
    float16   for a quantized base, where a step reads the matrices of every adapter in it: half the bytes
    int8      for a quantized base too; a quarter of the bytes

A pair whose product these types would change too much has more bits. It is measured for each pair: parts of b · a may
cancel, as in an adapter converted from PiSSA or OLoRA, whose first half is the trained one and whose second half takes
the initial one away again. The product is then far smaller than its parts, and their rounding is as large as it is.

Vectors, norms and single rows stay float32: they are small, and an error in one of their values has a large effect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from intaglio.ops import AdapterTensors, LoraPair

AdapterDtype = Literal["float32", "float16", "int8"]
F64 = NDArray[np.float64]

# The most that packing may change a product b · a, relative to it (Frobenius norms); a pair beyond has the next type.
# Random pairs of rank 1 to 64 measure 2e-4 to 3e-4 and 6e-3 to 2e-2, the demo adapters the same. Verification allows
# 1e-2 and 0.2 on inputs that are not spread evenly over all directions, as this norm supposes.
_MAX_ROUNDING: Mapping[AdapterDtype, float] = {"float16": 2e-3, "int8": 0.1}
_MORE_BITS: Mapping[AdapterDtype, AdapterDtype] = {"int8": "float16", "float16": "float32"}

_PROBES = 8  # random inputs that it is measured with
_CHUNK_ELEMENTS = 1 << 20  # of a matrix, in float64 at a time


def pack_tensors(tensors: AdapterTensors, dtype: AdapterDtype) -> AdapterTensors:
    """The adapter with a and b of the given type, or of one with more bits where that would change their product too
    much; a and bᵀ C-contiguous, as `Ops.adapter_weights` needs them.

    int8 has a scale for each row of a and one for each column of b, both of which belong to one rank: their product is
    the rank's scale. A value is then off by 1/254 of the largest of its row or column at most.

    float16 keeps eleven bits of each value. First a and b are multiplied by powers of two that bring their largest
    magnitude into [0.5, 1), so that the small numbers of an adapter early in training do not underflow float16; the
    pair's scale undoes this. A delta then differs from the float32 one by 2^-10 of Σ |b| |a| at most, plus
    2^-24 of the largest values for numbers that are thousands of times smaller than those.
    """
    return replace(tensors, pairs={key: _accurate_pair(pair, dtype) for key, pair in tensors.pairs.items()})


def count_wider(tensors: AdapterTensors, dtype: AdapterDtype) -> int:
    """How many pairs of packed tensors have more bits than the type has."""
    return sum(pair.a.dtype.itemsize > np.dtype(dtype).itemsize for pair in tensors.pairs.values())


def _accurate_pair(pair: LoraPair, dtype: AdapterDtype) -> LoraPair:
    packed = _packed_pair(pair, dtype)
    if dtype == "float32" or rounding(pair, packed) <= _MAX_ROUNDING[dtype]:
        return packed
    return _accurate_pair(pair, _MORE_BITS[dtype])


def rounding(pair: LoraPair, packed: LoraPair) -> float:
    """How far packing moved the pair's product: |(packed b · a - b · a) x| / |b · a x| over some random inputs x, an
    estimate of the same quotient of Frobenius norms. 0 if both are zero, infinite if only b · a is.
    """
    inputs = np.random.default_rng(0).standard_normal((pair.a.shape[1], _PROBES))
    exact = _product(pair, inputs)
    change, size = float(np.linalg.norm(_product(packed, inputs) - exact)), float(np.linalg.norm(exact))
    return change / size if size else (math.inf if change else 0.0)


def _product(pair: LoraPair, inputs: F64) -> F64:
    """scale · b · a · inputs in float64: [in, n] -> [out, n]."""
    shrunk = _times(pair.a, inputs)
    return _times(pair.b, shrunk * np.broadcast_to(np.asarray(pair.scale, np.float64), pair.a.shape[:1])[:, None])


def _times(matrix: NDArray[Any], inputs: F64) -> F64:
    """matrix · inputs, some rows of the matrix in float64 at a time."""
    step = max(1, _CHUNK_ELEMENTS // matrix.shape[1])
    starts = range(0, matrix.shape[0], step)
    return np.concatenate([matrix[start : start + step].astype(np.float64) @ inputs for start in starts])


def _packed_pair(pair: LoraPair, dtype: AdapterDtype) -> LoraPair:
    if dtype == "float32":
        return replace(pair, a=np.ascontiguousarray(pair.a), b=np.ascontiguousarray(pair.b.T).T)
    scale = np.asarray(pair.scale, np.float32)
    if dtype == "float16":
        a, a_exponent = _to_float16(pair.a)
        bt, b_exponent = _to_float16(pair.b.T)
        return replace(pair, a=a, b=bt.T, scale=np.ldexp(scale, a_exponent + b_exponent))
    a_bytes, a_scales = _to_int8(pair.a)
    bt_bytes, b_scales = _to_int8(pair.b.T)
    return replace(pair, a=a_bytes, b=bt_bytes.T, scale=scale * a_scales * b_scales)


def _to_int8(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """([rank, n] as int8, [rank] float32 scales); a row of zeros has the scale 0."""
    scales = np.abs(values).max(axis=1) / np.float32(127)
    with np.errstate(over="ignore", invalid="ignore"):  # rows so small that their inverse overflows become zeros
        inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
        scaled = np.nan_to_num(values * inverse[:, None], posinf=0, neginf=0)
    return np.ascontiguousarray(np.rint(scaled), np.int8), scales


def _to_float16(values: NDArray[np.float32]) -> tuple[NDArray[np.float16], int]:
    """(values · 2^-exponent as C-contiguous float16, exponent), the largest magnitude in [0.5, 1) before rounding."""
    exponent = math.frexp(float(np.abs(values).max()))[1]
    return np.ascontiguousarray(np.ldexp(values, -exponent), np.float16), exponent
