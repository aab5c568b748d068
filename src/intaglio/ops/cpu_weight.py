"""A matrix of the base as the C++ body holds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from intaglio.ops import Format, QuantizedFormat
from intaglio.ops._cpu import PackedMatrix, pack

_CODES = {"f32": 0, "bf16": 1, "w8": 2, "w4": 3, "w5": 4}


class CpuWeight:
    """A packed matrix: its shape [out, in], its format, and the arrays in the kernels' layout."""

    def __init__(
        self, fmt: Format | QuantizedFormat, shape: tuple[int, int], arrays: dict[str, npt.NDArray[Any]]
    ) -> None:
        self.fmt = fmt
        self.shape = shape
        self.arrays = arrays
        values = arrays["values"].reshape(-1).view(np.uint8)
        self.packed: PackedMatrix = pack(
            _CODES[fmt], shape[0], shape[1], values, arrays.get("scales"), arrays.get("minima")
        )
