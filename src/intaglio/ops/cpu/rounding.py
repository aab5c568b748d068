"""`ops.affine_search` in C++."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from intaglio.ops._cpu import search_affine as _search_affine
from intaglio.ops.affine_search import F32, Affine
from intaglio.ops.arrays import GROUP

SearchAffine: TypeAlias = Callable[..., Affine]  # (values, most, weights = None)


def search_affine(values: F32, most: int, weights: F32 | None = None) -> Affine:
    """As `ops.affine_search.search_affine`; the interpreter lock is released."""
    rows, inputs = values.shape
    whole = np.empty((rows, inputs), np.uint8)
    scales, minima = (np.empty((rows, -(-inputs // GROUP)), np.float32) for _ in range(2))
    given = None if weights is None else np.ascontiguousarray(weights, np.float32)
    _search_affine(np.ascontiguousarray(values, np.float32), given, most, whole, scales, minima)
    return Affine(whole, scales.astype(np.float16), minima.astype(np.float16))
