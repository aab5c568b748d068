"""From a checkpoint's tensor to integers with a scale per 32 inputs: the formats w8, w5 and w4.

If a tensor is quantized already, its own numbers are used: Q8_0, IQ4_NL and IQ4_XS as w8; Q5_0, Q5_1 and Q5_K as w5;
Q4_0, Q4_1 and Q4_K as w4. Only the last bits of scales are lost, which become float16. Everything else is decoded and
rounded: to w8 here, to w5 and w4 by a search for the least squared error (`ops.affine_search`).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError
from intaglio.model.weights.dequantize import (
    Blocks,
    dequantize,
    five_bit_numbers,
    four_bit_numbers,
    iq4_nl_numbers,
    iq4_xs_numbers,
    iq4_xs_scales,
    nibbles,
    sub_block_scales,
    with_fifth_bits,
)
from intaglio.model.weights.formats import RawTensor
from intaglio.ops import GROUP, Format, QuantizedFormat, QuantizedMatrix, affine_search
from intaglio.ops.affine_search import Affine

WeightFormat = Literal["auto"] | Format | QuantizedFormat

_PIECE_WEIGHTS = 1 << 19  # rounded by one thread at a time, in its core's cache
_MAX_THREADS = 8
PIECE_WEIGHTS = _MAX_THREADS * _PIECE_WEIGHTS  # rounded at a time, at most
# Storage types whose own numbers a format can hold.
_KEPT: dict[str, QuantizedFormat] = {
    "Q8_0": "w8",
    "Q5_0": "w5",
    "Q5_1": "w5",
    "Q5_K": "w5",
    "Q4_0": "w4",
    "Q4_1": "w4",
    "Q4_K": "w4",
    "IQ4_NL": "w8",
    "IQ4_XS": "w8",
}
_MOST = {"w5": 31, "w4": 15}  # the greatest whole number
_PLAIN: dict[str, Format] = {"F32": "f32", "F16": "f32", "BF16": "bf16"}


def format_of(dtype: str, wanted: WeightFormat, *, is_table: bool) -> Format | QuantizedFormat:
    """The format in memory of a matrix with a given storage type.

    auto      as in the file: plain numbers stay plain, quantized ones get the format that can hold them unchanged
    w5, w4    for the matrices of the blocks; the embedding, which is also the head, stays w8
    is_table  whether the matrix is the embedding or the head
    """
    if wanted == "auto":
        return _PLAIN.get(dtype) or _KEPT.get(dtype, "w8")
    return "w8" if wanted in ("w5", "w4") and is_table else wanted


def plain_values(raw: RawTensor) -> NDArray[Any]:
    """[out, in] bfloat16, a view of the memory-mapped file, if it is stored as bfloat16; else float32."""
    if raw.dtype == "BF16":
        values: NDArray[Any] = raw.data.view(ml_dtypes.bfloat16).reshape(raw.shape)
        return values
    return dequantize(raw)


def quantize(
    raw: RawTensor,
    fmt: QuantizedFormat,
    importance: NDArray[np.float32] | None = None,
    on_bytes: Callable[[int], None] = lambda num_bytes: None,
) -> QuantizedMatrix:
    """A tensor [out, in] in a quantized format, with the file's own numbers where the format can hold them.

    importance  [in]: the weight of an error in each input, in w5 and w4; None: all the same
    on_bytes    called after each run of rows with the number of its stored bytes
    """
    pieces, row_bytes = [], raw.data.nbytes // raw.shape[0]
    for piece in quantized_pieces(raw, fmt, importance):
        pieces.append(piece)
        on_bytes(piece.shape[0] * row_bytes)
    return _joined(pieces)


def quantized_pieces(
    raw: RawTensor, fmt: QuantizedFormat, importance: NDArray[np.float32] | None = None
) -> Iterator[QuantizedMatrix]:
    """The same in runs of rows, a few of which are in memory at a time: rounding takes some twenty bytes of temporary
    memory per weight, and an embedding has up to 1.4 billion weights.
    """

    def quantized(piece: RawTensor) -> QuantizedMatrix:
        with np.errstate(invalid="ignore", over="ignore"):  # a scale too large for float16 is reported by name
            if keeps_numbers(raw.dtype, fmt):
                matrix = _stored_numbers(piece, fmt)
            else:
                matrix = _rounded(dequantize(piece), fmt, importance)
        return _with_finite_scales(raw, matrix)

    return _in_threads(quantized, _pieces(raw))


def keeps_numbers(dtype: str, fmt: QuantizedFormat) -> bool:
    """Whether a format holds the numbers of a storage type unchanged."""
    return _KEPT.get(dtype) == fmt or (fmt, dtype) == ("w8", "Q5_0")


def has_no_minima(dtype: str, fmt: Format | QuantizedFormat) -> bool:
    """Whether the numbers of a storage type, kept in w5 or w4, are centred: then a group has a scale alone."""
    return (dtype, fmt) in (("Q5_0", "w5"), ("Q4_0", "w4"))


def round_to_w8(values: NDArray[np.float32]) -> QuantizedMatrix:
    """Nearest whole numbers from -127 to 127; the largest magnitude of a group becomes 127."""
    groups = _grouped(values)
    scales = _half_not_below(np.abs(groups).max(axis=2) / 127)
    whole = np.rint(groups * _reciprocal(scales)[:, :, None]).clip(-127, 127).astype(np.int8)
    return QuantizedMatrix("w8", _ungrouped(whole, values.shape[1]), scales)


def search_rounding(
    values: NDArray[np.float32], fmt: Literal["w5", "w4"], importance: NDArray[np.float32] | None = None
) -> QuantizedMatrix:
    """The scale and minimum of each group with which its squared error is least; see `ops.affine_search`."""
    return QuantizedMatrix(fmt, *_search()(values, _MOST[fmt], importance))


def round_to_w5(values: NDArray[np.float32]) -> QuantizedMatrix:
    """Nearest of the 32 steps between a group's least and greatest value: the baseline of the search."""
    return QuantizedMatrix("w5", *_rounded_between_extremes(values, _MOST["w5"]))


def round_to_w4(values: NDArray[np.float32]) -> QuantizedMatrix:
    """Nearest of the 16 steps between a group's least and greatest value: the baseline of the search."""
    return QuantizedMatrix("w4", *_rounded_between_extremes(values, _MOST["w4"]))


def _rounded(
    values: NDArray[np.float32], fmt: QuantizedFormat, importance: NDArray[np.float32] | None
) -> QuantizedMatrix:
    return round_to_w8(values) if fmt == "w8" else search_rounding(values, fmt, importance)


def _search() -> Callable[[NDArray[np.float32], int, NDArray[np.float32] | None], Affine]:
    """In C++; in NumPy, which takes some ten times as long, where the extension module is missing."""
    try:
        from intaglio.ops.cpu.rounding import search_affine
    except ImportError:
        return affine_search.search_affine
    return search_affine


def _rounded_between_extremes(
    values: NDArray[np.float32], most: int
) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float16]]:
    """Whole numbers 0 ... most, scales and minima."""
    groups = _grouped(values)
    least = np.minimum(groups.min(axis=2), 0)
    minima = _half_not_below(-least)
    scales = _half_not_below((groups.max(axis=2) + minima.astype(np.float32)) / most)
    shifted = (groups + minima.astype(np.float32)[:, :, None]) * _reciprocal(scales)[:, :, None]
    whole = np.rint(shifted).clip(0, most).astype(np.uint8)
    return _ungrouped(whole, values.shape[1]), scales, minima


def _in_threads(
    function: Callable[[RawTensor], QuantizedMatrix], pieces: Iterator[RawTensor]
) -> Iterator[QuantizedMatrix]:
    """function of each piece, in order; NumPy and the kernels release the interpreter lock inside their loops."""
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    pending: deque[Future[QuantizedMatrix]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="quantize") as pool:
        for piece in pieces:
            pending.append(pool.submit(function, piece))
            if len(pending) == threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _pieces(raw: RawTensor) -> Iterator[RawTensor]:
    """The tensor in runs of rows."""
    out, inputs = raw.shape
    rows, row_bytes = max(1, _PIECE_WEIGHTS // inputs), raw.data.nbytes // out
    for start in range(0, out, rows):
        stop = min(out, start + rows)
        yield RawTensor(raw.name, raw.dtype, (stop - start, inputs), raw.data[start * row_bytes : stop * row_bytes])


def _joined(pieces: Sequence[QuantizedMatrix]) -> QuantizedMatrix:
    first = pieces[0]
    minima = None if first.minima is None else np.concatenate([piece.minima for piece in pieces])
    values, scales = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("values", "scales"))
    return QuantizedMatrix(first.fmt, values, scales, minima)


def _stored_numbers(raw: RawTensor, fmt: QuantizedFormat) -> QuantizedMatrix:
    """The file's own numbers; see `keeps_numbers`."""
    values, *numbers = _whole_numbers(raw.dtype, raw.blocks())
    if (fmt, raw.dtype) == ("w8", "Q5_0"):
        values = values.view(np.int8) - np.int8(16)
    out, inputs = raw.shape
    with np.errstate(over="ignore"):  # reported by name
        halves = [x.astype(np.float16).reshape(out, inputs // GROUP) for x in numbers]
    return QuantizedMatrix(fmt, np.ascontiguousarray(values).reshape(out, inputs), *halves)


def _whole_numbers(dtype: str, blocks: Blocks) -> tuple[NDArray[Any], ...]:
    """The integers of a quantized tensor, their scales and, for types that have them, their minima."""
    scales: tuple[NDArray[Any], ...]
    match dtype:
        case "Q8_0":
            values, scales = blocks["q"], (blocks["d"],)
        case "Q5_0":
            values, scales = with_fifth_bits(blocks), (blocks["d"],)
        case "Q5_1":
            values, scales = with_fifth_bits(blocks), (blocks["d"], -blocks["m"])
        case "Q5_K":
            values, scales = five_bit_numbers(blocks), sub_block_scales(blocks)
        case "Q4_0":
            values, scales = nibbles(blocks["q"]), (blocks["d"],)
        case "Q4_1":
            values, scales = nibbles(blocks["q"]), (blocks["d"], -blocks["m"])
        case "Q4_K":
            values, scales = four_bit_numbers(blocks), sub_block_scales(blocks)
        case "IQ4_NL":
            values, scales = iq4_nl_numbers(blocks), (blocks["d"],)
        case "IQ4_XS":
            values, scales = iq4_xs_numbers(blocks), (iq4_xs_scales(blocks),)
        case _:
            raise AssertionError(f"{dtype} is not kept")
    return (values, *scales)


def _with_finite_scales(raw: RawTensor, matrix: QuantizedMatrix) -> QuantizedMatrix:
    if not all(x is None or np.isfinite(x).all() for x in (matrix.scales, matrix.minima)):
        raise ModelFormatError(
            f"tensor {raw.name!r} holds a scale that is a NaN or an infinity, or too large for {matrix.fmt}"
        )
    return matrix


def _half_not_below(numbers: NDArray[np.float32]) -> NDArray[np.float16]:
    """float16, rounded up: with a scale rounded down, a group's largest value could not be represented."""
    halves: NDArray[np.float16] = numbers.astype(np.float16)
    return np.where(halves < numbers, np.nextafter(halves, np.float16(np.inf)), halves)


def _grouped(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """[out, groups, 32], padded with zeros."""
    out, inputs = values.shape
    padded = np.pad(values, ((0, 0), (0, -inputs % GROUP)))
    return padded.reshape(out, -1, GROUP)


def _ungrouped(groups: NDArray[Any], inputs: int) -> NDArray[Any]:
    return np.ascontiguousarray(groups.reshape(groups.shape[0], -1)[:, :inputs])


def _reciprocal(scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """1 / scale, and 0 for a group of zeros."""
    wide = scales.astype(np.float32)
    return np.divide(1, wide, out=np.zeros_like(wide), where=wide != 0)
