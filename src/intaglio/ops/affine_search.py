"""Rounding weights to whole numbers with a scale and a minimum per group, by search for the least squared error.

A few extreme values make the steps between a group's extremes coarse: a scale that is a little smaller clips those
values and rounds all the others more finely. For each group of 32

1. several numbers of steps between the extremes are tried; for the whole numbers of each, the scale and minimum with
   the least error are those of a linear regression;
2. the best is refined: whole numbers for its scale and minimum, the regression for those, and again;
3. scale and minimum are rounded to float16, and the whole numbers are computed for those. If rounding between the
   extremes has a smaller error, it is the result.

An error may be weighted by its input: with the mean square of that input's activations the sum is the error of the
products, not of the weights. Source: `make_qkx2_quants` and the importance matrix of llama.cpp; our own code.

The numbers here are the reference. csrc/runtime/affine_search.cpp computes the same, up to the last bits of its sums.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from intaglio.ops.arrays import GROUP

F32 = NDArray[np.float32]

FIRST, STEP, NUM_TRIED, NUM_REFINED = -1.0, 0.4, 10, 3


class Affine(NamedTuple):
    """A weight is scale * whole - minimum.

    whole           [rows, inputs] uint8
    scales, minima  [rows, groups] float16
    """

    whole: NDArray[np.uint8]
    scales: NDArray[np.float16]
    minima: NDArray[np.float16]


def search_affine(values: F32, most: int, weights: F32 | None = None) -> Affine:
    """Round [rows, inputs] to 0 ... most. weights [inputs]: of an error in each input, at least 0."""
    rows, inputs = values.shape
    padding = -inputs % GROUP
    x = np.pad(values, ((0, 0), (0, padding)), mode="edge").reshape(-1, GROUP)
    counted = np.pad(np.ones(inputs, np.float32), (0, padding)).reshape(-1, GROUP)
    given = counted if weights is None else np.pad(weights, (0, padding)).reshape(-1, GROUP)
    w = np.tile(np.where((given > 0).any(axis=1, keepdims=True), given, counted), (rows, 1)).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the caller refuses what is not finite
        found = _search(x, w, float(most))
    shape = (rows, (inputs + padding) // GROUP)
    whole = found.whole.reshape(rows, -1)[:, :inputs]
    return Affine(np.ascontiguousarray(whole), found.scales.reshape(shape), found.minima.reshape(shape))


def _search(x: F32, w: F32, most: float) -> Affine:
    """Of groups [n, 32]."""
    low, span = x.min(axis=1), x.max(axis=1) - x.min(axis=1)
    plain_scale = (span / np.float32(most)).astype(np.float32)
    scale, least, best = plain_scale.copy(), low.copy(), np.full(len(x), np.inf, np.float32)
    for k in range(NUM_TRIED):
        q = _round(x, np.float32(most + FIRST + STEP * k) / span, low, most)
        fitted, s, m = _fit(x, w, q)
        error = _error(x, w, q, s, m)
        better = fitted & (error < best)
        scale, least = np.where(better, s, scale), np.where(better, m, least)
        best = np.where(better, error, best)
    going = np.isfinite(best)
    for _ in range(NUM_REFINED):
        fitted, s, m = _fit(x, w, _round(x, 1 / scale, least, most))
        going &= fitted
        scale, least = np.where(going, s, scale), np.where(going, m, least)
    found, plain = _settle(x, w, scale, least, most), _settle(x, w, plain_scale, low, most)
    chosen = found[0] <= plain[0]
    whole, scales, leasts = (
        np.where(chosen[:, None] if one.ndim == 2 else chosen, one, other)
        for one, other in zip(found[1:], plain[1:], strict=True)
    )
    return Affine(whole.astype(np.uint8), scales.astype(np.float16), (-leasts).astype(np.float16))


def _round(x: F32, inverse: F32, least: F32, most: float) -> F32:
    steps = np.nan_to_num((x - least[:, None]) * inverse[:, None], posinf=0, neginf=0)
    rounded: F32 = np.floor(np.clip(steps, 0, most) + np.float32(0.5))
    return rounded


def _fit(x: F32, w: F32, q: F32) -> tuple[NDArray[np.bool_], F32, F32]:
    """(whether the whole numbers differ, scale, least value): the regression of each group."""
    sums = [np.sum(one, axis=1, dtype=np.float32).astype(np.float64) for one in (w, w * q, w * q * q, w * x, w * q * x)]
    sw, sq, sqq, sx, sqx = sums
    d = sw * sqq - sq * sq
    scale: F32 = np.asarray((sw * sqx - sx * sq) / d, np.float32)
    least: F32 = np.asarray((sqq * sx - sq * sqx) / d, np.float32)
    return (d > 1e-6 * sw * sqq) & (scale > 0), scale, least


def _error(x: F32, w: F32, q: F32, scale: F32, least: F32) -> F32:
    error: F32 = np.sum(w * (least[:, None] + scale[:, None] * q - x) ** 2, axis=1, dtype=np.float32)
    return error


def _settle(x: F32, w: F32, scale: F32, least: F32, most: float) -> tuple[F32, F32, F32, F32]:
    """(error, whole numbers, scale, least value) with numbers that float16 holds."""
    scale, least = scale.astype(np.float16).astype(np.float32), least.astype(np.float16).astype(np.float32)
    q = _round(x, np.where(scale > 0, 1 / scale, 0).astype(np.float32), least, most)
    error = _error(x, w, q, scale, least)
    return np.where(np.isfinite(error), error, np.inf), q, scale, least
