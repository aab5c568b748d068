"""Memory that a checkpoint's weights will need, computed from shapes and storage types before anything is read.

Memory-mapped weights count in full, because pages that do not stay in memory are read again at every forward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from intaglio.model.quantize import PIECE_WEIGHTS, WeightFormat, format_of, has_no_minima
from intaglio.model.weights import TensorInfo
from intaglio.model.weights.names import EMBEDDING, HEAD
from intaglio.ops import GROUP, Format, QuantizedFormat

_TILE = 16  # outputs are padded to whole tiles, inputs to whole groups
_BYTES_PER_WEIGHT: dict[Format | QuantizedFormat, float] = {
    "f32": 4,
    "bf16": 2,
    "w8": 1 + 2 / GROUP,  # with a scale per group
    "w5": 5 / 8 + 4 / GROUP,  # with a scale and a minimum per group
    "w4": 4 / 8 + 4 / GROUP,
}
_BYTES_PER_MINIMUM = 2

# Temporary bytes per weight while one matrix is converted; measured, and compared with the peak of a real load in
# tests/model/test_footprint.py.
_CONVERTING = 4.1  # to bfloat16
_REORDERING = 2.6  # a quantized matrix into the kernels' layout
_WIDENING = 5.2  # a quantized matrix into float32, plus its copy for the packed file
_ROUNDING = 20  # of the rows that are rounded at a time, and their results until they are reordered


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes.

    weights  resident while the model is served
    loading  temporary, while the weights are prepared; freed once the model is loaded
    """

    weights: int
    loading: int


def weights_footprint(
    tensors: Mapping[str, TensorInfo], fmt: WeightFormat, *, widened: bool, is_packed: bool
) -> Footprint:
    """Bytes of a checkpoint's tensors in a format.

    widened    quantized weights become float32 in memory, as in the `reference` backend
    is_packed  quantized weights are in a packed file already, so nothing is converted
    """
    parts = [_TensorBytes.of(name, tensor, fmt, widened) for name, tensor in tensors.items()]
    to_prepare = [part for part in parts if not (part.is_quantized and is_packed)]
    loading = max((part.preparing for part in to_prepare), default=0)
    if widened:  # then the packed file's content is a second copy
        loading += sum(part.resident for part in to_prepare if part.is_quantized)
    return Footprint(sum(part.resident for part in parts), loading)


@dataclass(frozen=True, slots=True)
class _TensorBytes:
    """One tensor: resident bytes, and temporary bytes while it is prepared."""

    resident: int
    preparing: int
    is_quantized: bool

    @classmethod
    def of(cls, name: str, tensor: TensorInfo, fmt: WeightFormat, widened: bool) -> _TensorBytes:
        count = math.prod(tensor.shape)
        if len(tensor.shape) == 1:  # a norm
            return cls(4 * count, 0, False)
        stored_as = format_of(tensor.dtype, fmt, is_table=name in (EMBEDDING, HEAD))
        if stored_as == "f32" or stored_as == "bf16":
            converted = stored_as == "bf16" and tensor.dtype != "BF16"
            return cls(int(_BYTES_PER_WEIGHT[stored_as] * count), int(_CONVERTING * count) if converted else 0, False)
        rounding = _ROUNDING * min(count, PIECE_WEIGHTS)
        if widened:
            return cls(4 * count, int(_WIDENING * count) + rounding, True)
        out, inputs = tensor.shape
        padded = -(-out // _TILE) * _TILE * (-(-inputs // GROUP) * GROUP)
        size = int(_BYTES_PER_WEIGHT[stored_as] * padded)
        if stored_as in ("w5", "w4") and has_no_minima(tensor.dtype, stored_as):
            size -= _BYTES_PER_MINIMUM * padded // GROUP
        return cls(size, int(_REORDERING * padded) + rounding, True)
