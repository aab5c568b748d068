"""DoRA's gain: one factor for each output of a matrix.

    g = m / |W + scale · b · a|     norms over the inputs; for an embedding table, over the tokens

W is the served base, so the gain depends on both adapter and base. It does not depend on x and is computed once, when
the adapter is prepared. Source: DoRA (arXiv 2402.09353).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from intaglio.ops import LoraPair

F32 = npt.NDArray[np.float32]

# Elements of W in memory at a time: they fit into the cache, and computing them delays other threads by less than 1 ms.
_CHUNK_ELEMENTS = 1 << 18


def is_table_pair(shape: tuple[int, int], pair: LoraPair) -> bool:
    """Whether a pair belongs to a matrix [out, in] that is used as a lookup table, not multiplied: then a row is a
    token, and the pair's a and b have the opposite shapes.
    """
    return (pair.b.shape[0], pair.a.shape[1]) != shape


def dora_gain(changed: Callable[[npt.NDArray[np.int32]], F32], shape: tuple[int, int], pair: LoraPair) -> F32:
    """[outputs of W] float32, for a pair that has a magnitude.

    changed  returns the rows of W + scale · b · a with these indices, as float32
    shape    of W
    """
    is_table = is_table_pair(shape, pair)
    squares = np.zeros(shape[1] if is_table else shape[0], np.float64)
    step = max(1, _CHUNK_ELEMENTS // shape[1])
    for first in range(0, shape[0], step):
        some = np.arange(first, min(first + step, shape[0]), dtype=np.int32)
        rows = changed(some)
        if is_table:
            squares += np.einsum("ij,ij->j", rows, rows)
        else:
            squares[some] = np.einsum("ij,ij->i", rows, rows)
    lengths = np.sqrt(squares)
    lengths[lengths == 0] = 1  # an output that is always 0 stays so; PEFT divides by zero there
    return np.asarray(np.asarray(pair.magnitude, np.float64) / lengths, np.float32)
