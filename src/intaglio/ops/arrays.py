"""The types that operations exchange: opaque arrays and prepared objects of a backend, and quantized matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Array: TypeAlias = Any  # an array of the backend's own kind: numpy.ndarray for the CPU backends
Weight: TypeAlias = Any  # a matrix in the backend's layout
AdapterWeights: TypeAlias = Any  # one adapter's matrices in the backend's layout
LoraPlan: TypeAlias = Any  # which rows of one step have which adapter, as the backend prepared it
AttentionPlan: TypeAlias = Any  # where one step's attention reads and writes, as the backend prepared it
Distributions: TypeAlias = Any  # softmax of some rows of logits before sampling changes them
Format: TypeAlias = Literal["f32", "bf16"]
QuantizedFormat: TypeAlias = Literal["w8", "w5", "w4"]
KVFormat: TypeAlias = Literal["f32", "bf16", "int8"]  # how the cache holds keys and values; int8 with scales

GROUP = 32  # inputs that share one scale in a quantized matrix


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A matrix [out, in] as integers with one scale per 32 inputs of a row.

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
        """Subtracted from each integer before it is scaled."""
        return {"w8": 0, "w5": 16, "w4": 8}[self.fmt] if self.minima is None else 0

    @property
    def shape(self) -> tuple[int, int]:
        return (int(self.values.shape[0]), int(self.values.shape[1]))
