"""From blocks to float32: a decoder for each storage type, and the loop that decodes a tensor.

Every decoder does the same float32 operations in the same order as ggml's own `dequantize_row_*`, so the
values are bit for bit those that llama.cpp computes with. A decoder gets `blocks`, an array of records
[blocks], and writes all of `out` [blocks, block_size] float32.

The loop keeps its temporaries small. Decoding needs three or four passes over the same elements; done on a
whole embedding (168 million elements for the smallest Gemma 3) each pass would go out to memory and back.
In pieces of 65,536 elements they stay in the cache of one core, and the pieces are shared among a few
threads, because NumPy releases the interpreter lock inside its loops.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError
from intaglio.model.weights.formats import TYPE_BY_NAME, RawTensor

Blocks = NDArray[np.void]
Floats = NDArray[np.float32]

_PIECE_ELEMENTS = 65_536
_THREADED_ELEMENTS = 1 << 20  # below this a thread costs more than it saves
_MAX_THREADS = 8


def dequantize(raw: RawTensor) -> Floats:
    """Decode a stored tensor: float32, C-contiguous, of `raw.shape`.

    Raises ModelFormatError when a value is not finite: one NaN in a weight makes every logit NaN.
    """
    kind = TYPE_BY_NAME[raw.dtype]
    blocks = raw.blocks()
    out = np.empty((len(blocks), kind.block_size), dtype=np.float32)
    num_threads = min(_MAX_THREADS, os.cpu_count() or 1) if out.size >= _THREADED_ELEMENTS else 1
    if num_threads == 1:
        finite = _decode_span(raw.dtype, blocks, out)
    else:
        # One consecutive span per thread. Which thread decodes a block has no influence on its values.
        edges = [len(blocks) * i // num_threads for i in range(num_threads + 1)]
        spans = [slice(start, end) for start, end in itertools.pairwise(edges)]
        with ThreadPoolExecutor(num_threads, thread_name_prefix="dequantize") as pool:
            finite = all(pool.map(lambda span: _decode_span(raw.dtype, blocks[span], out[span]), spans))
    if not finite:
        raise ModelFormatError(f"tensor {raw.name!r} holds a NaN or an infinity")
    return out.reshape(raw.shape)


def _decode_span(dtype: str, blocks: Blocks, out: Floats) -> bool:
    """Decode a run of blocks piece by piece. Returns whether every value is finite."""
    decode = _DECODERS[dtype]
    step = max(1, _PIECE_ELEMENTS // out.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):  # a bad scale is reported by name, not as a warning
        for start in range(0, len(blocks), step):
            piece = out[start : start + step]
            decode(blocks[start : start + step], piece)
            if not np.isfinite(piece).all():
                return False
    return True


def _column(scale: NDArray[np.float16]) -> Floats:
    """A scale per block, widened and ready to multiply the block's row: [blocks, 1]."""
    return scale.astype(np.float32)[:, None]


def _f32(blocks: Blocks, out: Floats) -> None:
    out[:, 0] = blocks["value"]


def _f16(blocks: Blocks, out: Floats) -> None:
    out[:, 0] = blocks["value"]


def _bf16(blocks: Blocks, out: Floats) -> None:
    """A bfloat16 is the upper half of a float32, so widening it is exact."""
    bits = out.view(np.uint32)
    bits[:, 0] = blocks["value"]
    bits <<= 16


def nibbles(q: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[blocks, 16] bytes to [blocks, 32] values: the low halves are elements 0-15, the high halves 16-31."""
    return np.concatenate((q & 15, q >> 4), axis=1)


def with_fifth_bits(blocks: Blocks) -> NDArray[np.uint8]:
    """Q5_0 and Q5_1: bit j of the 32-bit field is the fifth bit of element j."""
    values = np.unpackbits(blocks["fifth"], axis=1, bitorder="little")
    values <<= 4
    values |= nibbles(blocks["q"])
    return values


def _q4_0(blocks: Blocks, out: Floats) -> None:
    """d · (q - 8)"""
    out[...] = nibbles(blocks["q"])
    out -= 8
    out *= _column(blocks["d"])


def _q4_1(blocks: Blocks, out: Floats) -> None:
    """d · q + m"""
    out[...] = nibbles(blocks["q"])
    out *= _column(blocks["d"])
    out += _column(blocks["m"])


def _q5_0(blocks: Blocks, out: Floats) -> None:
    """d · (q - 16)"""
    out[...] = with_fifth_bits(blocks)
    out -= 16
    out *= _column(blocks["d"])


def _q5_1(blocks: Blocks, out: Floats) -> None:
    """d · q + m"""
    out[...] = with_fifth_bits(blocks)
    out *= _column(blocks["d"])
    out += _column(blocks["m"])


# The sixteen values of the IQ4 types, denser around zero.
_IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)


def iq4_nl_numbers(blocks: Blocks) -> NDArray[np.int8]:
    """IQ4_NL: [blocks, 32], each half byte an index of the table."""
    return _IQ4_VALUES[nibbles(blocks["q"])]


def _iq4_nl(blocks: Blocks, out: Floats) -> None:
    """d · table[q]"""
    out[...] = iq4_nl_numbers(blocks)
    out *= _column(blocks["d"])


def iq4_xs_numbers(blocks: Blocks) -> NDArray[np.int8]:
    """IQ4_XS: [blocks, 8, 32]; each 16 bytes are a sub-block as in IQ4_NL."""
    q = blocks["q"]
    return _IQ4_VALUES[np.concatenate((q & 15, q >> 4), axis=2)]


def iq4_xs_scales(blocks: Blocks) -> Floats:
    """The scales of the 8 sub-blocks, [blocks, 8, 1]: d times six bits less 32, four of them low and two high."""
    low = np.stack((blocks["scales_low"] & 15, blocks["scales_low"] >> 4), axis=2).reshape(-1, 8)
    high = (blocks["scales_high"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16)).astype(np.uint8) & 3
    numbers = (low | high << 4).astype(np.float32) - 32
    scales: Floats = (_column(blocks["d"]) * numbers)[:, :, None]
    return scales


def _iq4_xs(blocks: Blocks, out: Floats) -> None:
    sub_blocks = out.reshape(-1, 8, 32)
    sub_blocks[...] = iq4_xs_numbers(blocks)
    sub_blocks *= iq4_xs_scales(blocks)


def _q8_0(blocks: Blocks, out: Floats) -> None:
    """d · q"""
    out[...] = blocks["q"]
    out *= _column(blocks["d"])


def sub_block_scales(blocks: Blocks) -> tuple[Floats, Floats]:
    """The (scale, minimum) of the 8 sub-blocks of 32 in a Q4_K or Q5_K block, each [blocks, 8, 1].

    Twelve bytes hold sixteen 6-bit numbers. Bytes 0-3 carry the first four scales and bytes 4-7 the first
    four minima, in their lower six bits. The last four of each are split: four bits in bytes 8-11 (scale in
    the low half, minimum in the high half), and two in the upper bits of bytes 0-3 and 4-7.
    """
    packed = blocks["scales"]
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate((first & 63, (third & 15) | ((first >> 6) << 4)), axis=1)
    minima = np.concatenate((second & 63, (third >> 4) | ((second >> 6) << 4)), axis=1)
    scale: Floats = (_column(blocks["d"]) * scales.astype(np.float32))[:, :, None]
    minimum: Floats = (_column(blocks["dmin"]) * minima.astype(np.float32))[:, :, None]
    return scale, minimum


def four_bit_numbers(blocks: Blocks) -> NDArray[np.uint8]:
    """Q4_K: [blocks, 8, 32]; each 32 bytes hold two sub-blocks, the first in their low halves."""
    numbers: NDArray[np.uint8] = np.stack((blocks["q"] & 15, blocks["q"] >> 4), axis=2).reshape(-1, 8, 32)
    return numbers


def _q4_k(blocks: Blocks, out: Floats) -> None:
    """d·sc · q - dmin·mn"""
    _scaled(four_bit_numbers(blocks), blocks, out)


def five_bit_numbers(blocks: Blocks) -> NDArray[np.uint8]:
    """Q5_K: [blocks, 8, 32] as in Q4_K, and bit s of `fifth[l]` is the fifth bit of element l in sub-block s."""
    bits = blocks["fifth"][:, None, :] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return np.asarray(four_bit_numbers(blocks) | bits << 4, np.uint8)


def _q5_k(blocks: Blocks, out: Floats) -> None:
    _scaled(five_bit_numbers(blocks), blocks, out)


def _scaled(numbers: NDArray[np.uint8], blocks: Blocks, out: Floats) -> None:
    sub_blocks = out.reshape(-1, 8, 32)
    sub_blocks[...] = numbers
    scale, minimum = sub_block_scales(blocks)
    sub_blocks *= scale
    sub_blocks -= minimum


def _q6_k(blocks: Blocks, out: Floats) -> None:
    """d·sc · (q - 32), a signed scale for every 16 elements.

    Each half of the block has four runs of 32: the low and then the high halves of two rows of `low`, and
    bits 0-1, 2-3, 4-5, 6-7 of one row of `high` on top.
    """
    low, high = blocks["low"], blocks["high"]  # [blocks, half, row, 32], [blocks, half, 32]
    runs = out.reshape(-1, 2, 4, 32)
    for run in range(4):
        nibble = low[:, :, run] & 15 if run < 2 else low[:, :, run - 2] >> 4
        runs[:, :, run] = nibble | (((high >> 2 * run) & 3) << 4)
    out -= 32
    groups = out.reshape(-1, 16, 16)
    groups *= (_column(blocks["d"]) * blocks["scales"].astype(np.float32))[:, :, None]


_DECODERS: MappingProxyType[str, Callable[[Blocks, Floats], None]] = MappingProxyType(
    {
        "F32": _f32,
        "F16": _f16,
        "BF16": _bf16,
        "Q4_0": _q4_0,
        "Q4_1": _q4_1,
        "Q5_0": _q5_0,
        "Q5_1": _q5_1,
        "Q8_0": _q8_0,
        "Q4_K": _q4_k,
        "Q5_K": _q5_k,
        "Q6_K": _q6_k,
        "IQ4_NL": _iq4_nl,
        "IQ4_XS": _iq4_xs,
    }
)
