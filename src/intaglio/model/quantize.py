"""From a checkpoint's tensor to whole numbers with a scale per 32 inputs: the formats w8 and w4.

Where the file is quantized already its own numbers are kept: Q8_0 and Q5_0 as w8; Q4_0, Q4_1 and Q4_K as w4, with
nothing lost but the last bits of scales that become float16. Everything else is rounded here from its values.
"""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError
from intaglio.model.weights.blocks import dequantize, nibbles, sub_block_scales, with_fifth_bits
from intaglio.model.weights.formats import RawTensor
from intaglio.ops import GROUP, Format, QuantizedFormat, QuantizedMatrix

WeightFormat = Literal["auto"] | Format | QuantizedFormat

_KEPT_AS_W4 = ("Q4_0", "Q4_1", "Q4_K")
_PLAIN: dict[str, Format] = {"F32": "f32", "F16": "f32", "BF16": "bf16"}


def format_of(dtype: str, wanted: WeightFormat, *, is_table: bool) -> Format | QuantizedFormat:
    """The format that a matrix of a storage type is held in.

    auto      as the file has it: plain numbers stay plain, quantized ones become w4 or w8
    w4        for the matrices of the blocks; the embedding, which is also the head, stays w8
    is_table  whether the matrix is the embedding or the head
    """
    if wanted == "auto":
        return _PLAIN.get(dtype) or ("w4" if dtype in _KEPT_AS_W4 else "w8")
    return "w8" if wanted == "w4" and is_table else wanted


def plain_values(raw: RawTensor) -> NDArray[Any]:
    """[out, in] bfloat16 straight from the memory-mapped file where it holds that, else float32."""
    if raw.dtype == "BF16":
        values: NDArray[Any] = raw.data.view(ml_dtypes.bfloat16).reshape(raw.shape)
        return values
    return dequantize(raw)


def quantize(raw: RawTensor, fmt: QuantizedFormat) -> QuantizedMatrix:
    """A tensor [out, in] in w8 or w4, with the file's own numbers where the format can hold them."""
    kept = _kept(raw, fmt)
    if kept is not None:
        return kept
    values = dequantize(raw)
    with np.errstate(invalid="ignore", over="ignore"):  # a scale too large for float16 is reported by name
        rounded = round_to_w8(values) if fmt == "w8" else round_to_w4(values)
    return _with_finite_scales(raw, rounded)


def round_to_w8(values: NDArray[np.float32]) -> QuantizedMatrix:
    """Nearest whole numbers -127 ... 127; the largest of a group is 127 steps."""
    groups = _grouped(values)
    scales = _half_not_below(np.abs(groups).max(axis=2) / 127)
    whole = np.rint(groups * _reciprocal(scales)[:, :, None]).clip(-127, 127).astype(np.int8)
    return QuantizedMatrix("w8", _ungrouped(whole, values.shape[1]), scales)


def round_to_w4(values: NDArray[np.float32]) -> QuantizedMatrix:
    """Nearest of the sixteen steps between a group's least and greatest value."""
    groups = _grouped(values)
    least = np.minimum(groups.min(axis=2), 0)
    minima = _half_not_below(-least)
    scales = _half_not_below((groups.max(axis=2) + minima.astype(np.float32)) / 15)
    shifted = (groups + minima.astype(np.float32)[:, :, None]) * _reciprocal(scales)[:, :, None]
    whole = np.rint(shifted).clip(0, 15).astype(np.uint8)
    return QuantizedMatrix("w4", _ungrouped(whole, values.shape[1]), scales, minima)


def _kept(raw: RawTensor, fmt: QuantizedFormat) -> QuantizedMatrix | None:
    out, inputs = raw.shape
    blocks = raw.blocks()

    def matrix(values: NDArray[Any], scales: NDArray[Any], minima: NDArray[Any] | None = None) -> QuantizedMatrix:
        shape = (out, inputs // GROUP)
        with np.errstate(over="ignore"):  # reported by name
            halves = [None if x is None else x.astype(np.float16).reshape(shape) for x in (scales, minima)]
        kept = QuantizedMatrix(fmt, np.ascontiguousarray(values).reshape(out, inputs), *halves)
        return _with_finite_scales(raw, kept)

    match (fmt, raw.dtype):
        case ("w8", "Q8_0"):
            return matrix(blocks["q"], blocks["d"])
        case ("w8", "Q5_0"):
            return matrix(with_fifth_bits(blocks).view(np.int8) - np.int8(16), blocks["d"])
        case ("w4", "Q4_0"):
            return matrix(nibbles(blocks["q"]), blocks["d"], blocks["d"].astype(np.float32) * 8)
        case ("w4", "Q4_1"):
            return matrix(nibbles(blocks["q"]), blocks["d"], -blocks["m"])
        case ("w4", "Q4_K"):
            scales, minima = sub_block_scales(blocks)
            halves = np.stack((blocks["q"] & 15, blocks["q"] >> 4), axis=2)  # [blocks, 4, 2, 32]
            return matrix(halves, scales, minima)
    return None


def _with_finite_scales(raw: RawTensor, matrix: QuantizedMatrix) -> QuantizedMatrix:
    if not all(x is None or np.isfinite(x).all() for x in (matrix.scales, matrix.minima)):
        raise ModelFormatError(
            f"tensor {raw.name!r} holds a scale that is a NaN or an infinity, or too large for {matrix.fmt}"
        )
    return matrix


def _half_not_below(numbers: NDArray[np.float32]) -> NDArray[np.float16]:
    """float16 rounded up: with a scale rounded down, a group's largest value would be out of reach."""
    halves: NDArray[np.float16] = numbers.astype(np.float16)
    return np.where(halves < numbers, np.nextafter(halves, np.float16(np.inf)), halves)


def _grouped(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """[out, groups, 32], filled up with zeros."""
    out, inputs = values.shape
    padded = np.pad(values, ((0, 0), (0, -inputs % GROUP)))
    return padded.reshape(out, -1, GROUP)


def _ungrouped(groups: NDArray[Any], inputs: int) -> NDArray[Any]:
    return np.ascontiguousarray(groups.reshape(groups.shape[0], -1)[:, :inputs])


def _reciprocal(scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """1 / scale, and 0 for a group of zeros."""
    wide = scales.astype(np.float32)
    return np.divide(1, wide, out=np.zeros_like(wide), where=wide != 0)
