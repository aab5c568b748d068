"""Weights rounded as llama.cpp's Q4_0 and Q4_K do, as float32: what our rounding is compared with.

Q4_K follows `quantize_row_q4_K_ref` of ggml-quants.c: for each group of 32 a search like ours, with weights
sqrt(mean x²) + |x| and minima of one sign; then scales and minima in 6 bits beside one float16 each for a super-block
of 256. llama.cpp takes another type for rows that are not whole super-blocks; here the last one is shorter.
"""

from __future__ import annotations

import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_GROUP, _GROUPS, _MOST = 32, 8, 15.0


def q4_0(values: F32) -> F32:
    kind = GGMLQuantizationType.Q4_0
    restored: F32 = quants.dequantize(quants.quantize(values, kind), kind)
    return restored


def q4_k(values: F32) -> F32:
    rows, inputs = values.shape
    x = values.reshape(-1, _GROUP)
    scale, least = _search(x, np.sqrt((x**2).mean(axis=1, keepdims=True)) + np.abs(x))
    scale, least = (_in_six_bits(one.reshape(rows, -1)) for one in (scale, least))
    scale, least = scale.reshape(-1, 1), least.reshape(-1, 1)
    q = np.where(scale > 0, np.clip(np.rint((x + least) / np.where(scale > 0, scale, 1)), 0, _MOST), 0)
    restored: F32 = (scale * q - least).reshape(rows, inputs).astype(np.float32)
    return restored


def _search(x: F32, w: F32) -> tuple[F32, F32]:
    """Scale and minimum, at least 0, of each group: make_qkx2_quants with its steps for Q4_K."""
    low, high = np.minimum(x.min(axis=1), 0), x.max(axis=1)
    span = np.maximum(high - low, 1e-30)
    scale, least, best = span / _MOST, low, np.full(len(x), np.inf)
    for step in range(22):
        inverse = (_MOST if step == 0 else _MOST - 1 + 0.1 * (step - 1)) / span
        q = np.clip(np.rint(inverse[:, None] * (x - low[:, None])), 0, _MOST)
        sw, sq, sqq = w.sum(1), (w * q).sum(1), (w * q * q).sum(1)
        sx, sqx = (w * x).sum(1), (w * q * x).sum(1)
        d = np.maximum(sw * sqq - sq * sq, 1e-30)
        s, m = (sw * sqx - sx * sq) / d, (sqq * sx - sq * sqx) / d
        s, m = np.where(m > 0, sqx / np.maximum(sqq, 1e-30), s), np.minimum(m, 0)
        error = (w * (s[:, None] * q + m[:, None] - x) ** 2).sum(1)
        better = (error < best) & (s > 0)
        scale, least, best = np.where(better, s, scale), np.where(better, m, least), np.where(better, error, best)
    return scale.astype(np.float32), (-least).astype(np.float32)


def _in_six_bits(numbers: F32) -> F32:
    """[rows, groups]: as multiples, 0 to 63, of one float16 for each super-block."""
    rows, groups = numbers.shape
    padded = np.pad(numbers, ((0, 0), (0, -groups % _GROUPS))).reshape(rows, -1, _GROUPS)
    unit = padded.max(axis=2, keepdims=True) / 63
    whole = np.clip(np.rint(padded / np.where(unit > 0, unit, 1)), 0, 63)
    restored: F32 = (whole * unit.astype(np.float16).astype(np.float32)).reshape(rows, -1)[:, :groups]
    return restored
