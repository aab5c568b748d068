"""Quantized matrices as blocks of the storage types of GGUF, which hold exactly the numbers of our formats.

w8                 Q8_0    scale · q
w5, w4             Q5_1, Q4_1    scale · q + m, where m is the minimum with the other sign
w5, w4 without minima    Q5_0, Q4_0    scale · (q - 16), scale · (q - 8)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.model.quantize import keeps_numbers
from intaglio.model.weights.formats import TYPE_BY_NAME
from intaglio.ops import GROUP, QuantizedFormat, QuantizedMatrix

_SYMMETRIC = {"Q4_0": "w4", "Q5_0": "w5"}


def storage_type(source_dtype: str, fmt: QuantizedFormat) -> str:
    """The storage type in the packed file of a matrix that has another one in its source."""
    if _SYMMETRIC.get(source_dtype) == fmt and keeps_numbers(source_dtype, fmt):
        return source_dtype
    return {"w8": "Q8_0", "w5": "Q5_1", "w4": "Q4_1"}[fmt]


def encoded(matrix: QuantizedMatrix, dtype: str) -> NDArray[np.uint8]:
    """[bytes]: the blocks of a storage type, row after row. Rows are whole groups."""
    values = np.asarray(matrix.values).reshape(-1, GROUP)
    blocks = np.empty(len(values), TYPE_BY_NAME[dtype].layout)
    blocks["d"] = np.asarray(matrix.scales).reshape(-1)
    if matrix.minima is not None:
        blocks["m"] = -np.asarray(matrix.minima).reshape(-1)
    if dtype == "Q8_0":
        blocks["q"] = values
        return blocks.view(np.uint8)
    if "fifth" in (blocks.dtype.names or ()):
        blocks["fifth"] = np.packbits(values >> 4, axis=1, bitorder="little")
    blocks["q"] = _paired(values & 15)
    return blocks.view(np.uint8)


def _paired(nibbles: NDArray[Any]) -> NDArray[Any]:
    """Values 0 to 15 in the low halves, 16 to 31 in the high ones."""
    half = GROUP // 2
    pairs: NDArray[Any] = nibbles[:, :half] | nibbles[:, half:] << 4
    return pairs
