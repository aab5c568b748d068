"""A matrix of the base in the reference backend: plain numbers, even if the file is quantized."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from intaglio.ops import GROUP, Format, QuantizedMatrix

F32 = npt.NDArray[np.float32]

_PIECE_BYTES = 512 << 10  # of float32: a piece of a matrix that stays in the cache while it is multiplied with all rows


def products(x: F32, matrix: npt.NDArray[np.generic]) -> F32:
    """x · matrixᵀ: [rows, in] float32 and [out, in] of any float -> [rows, out] float32.

    Each row has its own products, always of the same shapes, so that its bits depend only on the row, the matrix and
    NumPy's BLAS. One product for all rows would be up to eight times as fast, and would round a row
    differently in another batch.
    """
    out = np.empty((x.shape[0], matrix.shape[0]), np.float32)
    step = max(1, _PIECE_BYTES // (4 * max(1, matrix.shape[1])))
    for start in range(0, matrix.shape[0], step):
        piece = matrix[start : start + step].astype(np.float32, copy=False)
        out[:, start : start + step] = np.matmul(x[:, None, :], piece.T)[:, 0]
    return out


class MatrixWeight:
    """A matrix [out, in], held as float32 or as bfloat16 that is widened piece by piece where it is used."""

    def __init__(self, matrix: npt.NDArray[np.generic], fmt: Format) -> None:
        dtype: npt.DTypeLike = np.float32 if fmt == "f32" else ml_dtypes.bfloat16
        self._data: npt.NDArray[np.floating[Any]] = np.ascontiguousarray(matrix, dtype=dtype)
        self.shape: tuple[int, int] = (matrix.shape[0], matrix.shape[1])
        self.nbytes: int = self._data.nbytes

    def rows(self, ids: npt.NDArray[np.int32]) -> F32:
        """[n, in] float32, the rows with these ids."""
        rows: F32 = self._data[ids].astype(np.float32)
        return rows

    def product(self, x: F32) -> F32:
        """x · Wᵀ: [tokens, in] -> [tokens, out]."""
        return products(x, self._data)


def dequantized(matrix: QuantizedMatrix) -> F32:
    """The float32 values of a quantized matrix: [out, in]."""
    inputs = matrix.shape[1]
    values: F32 = (matrix.values.astype(np.float32) - matrix.centre) * _per_input(matrix.scales, inputs)
    return values if matrix.minima is None else values - _per_input(matrix.minima, inputs)


def _per_input(per_group: npt.NDArray[np.float16], inputs: int) -> F32:
    """[out, groups] -> [out, in]: each group's number for all its inputs."""
    return np.repeat(per_group.astype(np.float32), GROUP, axis=1)[:, :inputs]
