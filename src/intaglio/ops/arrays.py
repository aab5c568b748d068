"""What the operations pass around: arrays and prepared things that only the backend looks into, and quantized
matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Array: TypeAlias = Any  # an array of the backend's own kind: numpy.ndarray for the CPU backends
Weight: TypeAlias = Any  # a matrix in whatever layout the backend prepared it
AdapterWeights: TypeAlias = Any  # one adapter's matrices, as the backend prepared them
LoraPlan: TypeAlias = Any  # which rows of one step have which adapter, as the backend prepared it
AttentionPlan: TypeAlias = Any  # what one step's attention looks at, as the backend prepared it
Distributions: TypeAlias = Any  # what the model itself makes of the next token of some rows, as the backend keeps it
Format: TypeAlias = Literal["f32", "bf16"]
QuantizedFormat: TypeAlias = Literal["w8", "w5", "w4"]

GROUP = 32  # inputs that share one scale in a quantized matrix


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A matrix [out, in] as whole numbers with one scale per 32 inputs of a row.

    w8  value = scale · q            values int8 [out, in]
    w5  value = scale · q - minimum  values uint8 [out, in], 0 ... 31; scale · (q - 16) where minima are None
    w4  value = scale · q - minimum  values uint8 [out, in], 0 ... 15; scale · (q - 8) where minima are None
    scales, minima  [out, groups] float16, groups = in / 32 rounded up; minima are None for w8
    """

    fmt: QuantizedFormat
    values: Array
    scales: Array
    minima: Array | None = None

    @property
    def centre(self) -> int:
        """What is taken off each number before it is scaled."""
        return {"w8": 0, "w5": 16, "w4": 8}[self.fmt] if self.minima is None else 0

    @property
    def shape(self) -> tuple[int, int]:
        return (int(self.values.shape[0]), int(self.values.shape[1]))
