"""Converts an adapter's matrices to the number type that the engine has in memory.

    float32   for a base that is not quantized: exactly the values of the digest
    float16   for a quantized base, where a step reads the matrices of every adapter in it: half the bytes
    int8      for a quantized base too; a quarter of the bytes

Vectors, norms and single rows stay float32: they are small, and an error in one of their values has a large effect.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from intaglio.ops import AdapterTensors, LoraPair

AdapterDtype = Literal["float32", "float16", "int8"]


def pack_tensors(tensors: AdapterTensors, dtype: AdapterDtype) -> AdapterTensors:
    """The adapter with a and b of the given type, a and bᵀ C-contiguous, as `Ops.adapter_weights` needs them.

    int8 has a scale for each row of a and one for each column of b, both of which belong to one rank: their product is
    the rank's scale. A value is then off by 1/254 of the largest of its row or column at most.

    float16 keeps eleven bits of each value. First a and b are multiplied by powers of two that bring their largest
    magnitude into [0.5, 1), so that the small numbers of an adapter early in training do not underflow float16; the
    pair's scale undoes this. A delta then differs from the float32 one by 2^-10 of Σ |b| |a| at most, plus
    2^-24 of the largest values for numbers that are thousands of times smaller than those.
    """
    return replace(tensors, pairs={key: _packed_pair(pair, dtype) for key, pair in tensors.pairs.items()})


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
