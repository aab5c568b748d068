"""The layout of a tensor's numbers in a file: the storage types, and one stored tensor.

A storage type is a sequence of equal blocks. The plain types (F32, F16, BF16) are blocks of one element; the
quantized ones pack 32 or 256 elements of one row with the scales they share. Each layout below is written
as a NumPy record, so that the offsets can be read off and the sizes need no table of their own.

Source of the block layouts: `ggml-common.h` and `ggml-quants.c` of ggml. All fields are little-endian.
This module has names, sizes and bounds; `dequantize.py` decodes the fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError


@dataclass(frozen=True, slots=True)
class StorageType:
    """One way of writing elements as bytes. `layout.itemsize` is the number of bytes in a block."""

    name: str
    ggml_id: int
    block_size: int  # elements in a block
    layout: np.dtype[np.void]

    def row_bytes(self, elements: int) -> int:
        """Bytes of a row. `elements` must be a whole number of blocks."""
        return elements // self.block_size * self.layout.itemsize


MAX_DIMENSIONS = 4

_F16 = "<f2"

_STORAGE_TYPES = (
    StorageType("F32", 0, 1, np.dtype([("value", "<f4")])),
    StorageType("F16", 1, 1, np.dtype([("value", _F16)])),
    StorageType("BF16", 30, 1, np.dtype([("value", "<u2")])),
    StorageType("Q4_0", 2, 32, np.dtype([("d", _F16), ("q", "u1", (16,))])),
    StorageType("Q4_1", 3, 32, np.dtype([("d", _F16), ("m", _F16), ("q", "u1", (16,))])),
    StorageType("Q5_0", 6, 32, np.dtype([("d", _F16), ("fifth", "u1", (4,)), ("q", "u1", (16,))])),
    StorageType("Q5_1", 7, 32, np.dtype([("d", _F16), ("m", _F16), ("fifth", "u1", (4,)), ("q", "u1", (16,))])),
    StorageType("Q8_0", 8, 32, np.dtype([("d", _F16), ("q", "i1", (32,))])),
    StorageType(
        "Q4_K",
        12,
        256,
        np.dtype([("d", _F16), ("dmin", _F16), ("scales", "u1", (12,)), ("q", "u1", (4, 32))]),
    ),
    StorageType(
        "Q5_K",
        13,
        256,
        np.dtype(
            [
                ("d", _F16),
                ("dmin", _F16),
                ("scales", "u1", (12,)),
                ("fifth", "u1", (32,)),
                ("q", "u1", (4, 32)),
            ]
        ),
    ),
    StorageType(
        "Q6_K",
        14,
        256,
        np.dtype([("low", "u1", (2, 2, 32)), ("high", "u1", (2, 32)), ("scales", "i1", (16,)), ("d", _F16)]),
    ),
    StorageType("IQ4_NL", 20, 32, np.dtype([("d", _F16), ("q", "u1", (16,))])),
    StorageType(
        "IQ4_XS",
        23,
        256,
        np.dtype([("d", _F16), ("scales_high", "<u2"), ("scales_low", "u1", (4,)), ("q", "u1", (8, 16))]),
    ),
)

# Types of ggml that are not read, by id: named in the refusal.
UNREAD_TYPES = MappingProxyType({
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S",
    22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0",
    39: "MXFP4", 40: "NVFP4",
})  # fmt: skip

TYPE_BY_NAME = MappingProxyType({kind.name: kind for kind in _STORAGE_TYPES})
TYPE_BY_GGML_ID = MappingProxyType({kind.ggml_id: kind for kind in _STORAGE_TYPES})


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's description, without its values. `shape` is Hugging Face's: [out, in] for a linear weight."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor as stored in its file.

    name   as the file spells it; messages use it
    dtype  the name of a storage type
    shape  Hugging Face order, rows last: a linear weight is [out, in]
    data   [bytes] uint8, a read-only view of the memory-mapped file; rows follow each other without padding
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]

    def blocks(self) -> NDArray[np.void]:
        """The data as records of its storage type's layout, without a copy."""
        return self.data.view(TYPE_BY_NAME[self.dtype].layout)


def stored_bytes(name: str, kind: StorageType, shape: tuple[int, ...]) -> int:
    """Bytes that the tensor `name` needs.

    Raises ModelFormatError when it has no elements or when a row is not a whole number of blocks.
    """
    if not shape or min(shape) < 1:
        raise ModelFormatError(f"tensor {name!r} has the shape {list(shape)}: every dimension must be at least 1")
    if shape[-1] % kind.block_size:
        raise ModelFormatError(
            f"tensor {name!r} has rows of {shape[-1]} elements, not a whole number of {kind.name} blocks "
            f"of {kind.block_size}"
        )
    return math.prod(shape[:-1]) * kind.row_bytes(shape[-1])
