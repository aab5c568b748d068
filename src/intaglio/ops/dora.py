"""DoRA's gain: what the output of a matrix is multiplied with, one number for each output.

    g = m / |W + scale · b · a|     lengths over the inputs; of a table that is looked up, over the tokens

W is the base as it is served, so the gain belongs to an adapter and a base together. It does not depend on x and is
made once, when the adapter is prepared. Source: DoRA (arXiv 2402.09353).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from intaglio.ops import LoraPair

F32 = npt.NDArray[np.float32]

# Of W that are in memory at a time: they stay in the cache, and who computes beside this is held up for less than a
# millisecond.
_CHUNK_ELEMENTS = 1 << 18


def is_table_pair(shape: tuple[int, int], pair: LoraPair) -> bool:
    """Whether a pair is for looking rows up in a matrix [out, in] rather than for multiplying with it: then a row is a
    token, and the pair stands the other way round.
    """
    return (pair.b.shape[0], pair.a.shape[1]) != shape


def dora_gain(changed: Callable[[npt.NDArray[np.int32]], F32], shape: tuple[int, int], pair: LoraPair) -> F32:
    """[outputs of W] float32, for a pair that has a magnitude.

    changed  gives the rows of W + scale · b · a that are asked for by index, as float32
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
