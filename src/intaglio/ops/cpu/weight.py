"""A matrix of the base in the C++ backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from intaglio.ops import GROUP, Format, QuantizedFormat, QuantizedMatrix
from intaglio.ops._cpu import PackedMatrix, pack

_TILE = 16  # outputs that the kernels compute together
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


def tiled(matrix: QuantizedMatrix) -> CpuWeight:
    """A quantized matrix in the kernels' layout: see Matrix in csrc/kernels/kernels.h."""
    arrays: dict[str, npt.NDArray[Any]] = {"values": _tiled_values(matrix), "scales": _tiled_numbers(matrix.scales)}
    if matrix.minima is not None:
        arrays["minima"] = _tiled_numbers(matrix.minima)
    return CpuWeight(matrix.fmt, matrix.shape, arrays)


def _tiled_values(matrix: QuantizedMatrix) -> npt.NDArray[np.uint8]:
    """[tiles, groups, bytes]: of w8 8 quads x 16 outputs x 4 inputs; two quads share a byte in w4 and w5."""
    out, inputs = matrix.shape
    tiles, groups = -(-out // _TILE), -(-inputs // GROUP)
    shift = 128 if matrix.fmt == "w8" else 0
    padded: npt.NDArray[np.uint8] = np.full((tiles * _TILE, groups * GROUP), shift, np.uint8)
    # int8 + 128 as uint8 is the byte with its sign bit flipped
    padded[:out, :inputs] = matrix.values.view(np.uint8) ^ np.uint8(shift)
    quads = padded.reshape(tiles, _TILE, groups, GROUP // 4, 4).transpose(0, 2, 3, 1, 4).reshape(tiles, groups, 8, -1)
    if matrix.fmt == "w8":
        return np.ascontiguousarray(quads)
    low_bits = quads & np.uint8(15)
    halves = (low_bits[:, :, :4] | low_bits[:, :, 4:] << np.uint8(4)).reshape(tiles, groups, -1)
    if matrix.fmt == "w4":
        return np.ascontiguousarray(halves)
    fifth_bits = np.packbits(quads >> np.uint8(4), axis=-1, bitorder="little").reshape(tiles, groups, -1)
    return np.concatenate([halves, fifth_bits], axis=-1)


def _tiled_numbers(numbers: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """[out, groups] float16 -> [tiles, groups, 16], as raw bits."""
    out, groups = numbers.shape
    tiles = -(-out // _TILE)
    padded = np.zeros((tiles * _TILE, groups), np.float16)
    padded[:out] = numbers
    return np.ascontiguousarray(padded.reshape(tiles, _TILE, groups).transpose(0, 2, 1)).view(np.uint16)
