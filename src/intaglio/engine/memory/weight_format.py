"""Which format `auto` means for unquantized checkpoints that do not fit into memory as they are: w8, else w5, else w4.

A quantized checkpoint stays as it is: rounding it again saves little or no memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from intaglio.engine.memory.available import AvailableMemory
from intaglio.engine.memory.plan import format_mb
from intaglio.model.footprint import weights_footprint
from intaglio.model.quantize import WeightFormat, format_of
from intaglio.model.weights import TensorInfo

# For each engine besides its weights: the program, one step, and caches for a few conversations; on a small machine, a
# quarter of the available memory. With less, exact weights would leave too little memory to serve requests.
RESERVED_BYTES = 1 << 30
_CHOICES: tuple[WeightFormat, ...] = ("auto", "w8", "w5", "w4")

Tensors = Mapping[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class FormatChoice:
    """reason: one line for the log; empty if the weights stay as they are."""

    format: WeightFormat
    reason: str = ""


def fitting_formats(
    checkpoints: Sequence[Tensors], available: AvailableMemory, *, widened: bool = False
) -> list[FormatChoice]:
    """The most exact format in which all checkpoints fit, then those with fewer bits, for the case that `plan_memory`,
    which counts every byte, refuses the first. w4 is always among them.

    checkpoints  shape and storage type by tensor name; if any is quantized, the choice is `auto`
    widened      quantized weights become float32 in memory, as in the `reference` backend, which saves no memory
    """
    if widened or any(_is_quantized(tensors) for tensors in checkpoints):
        return [FormatChoice("auto")]
    reserved = min(RESERVED_BYTES * len(checkpoints), available.size_bytes // 4)
    room = available.size_bytes - reserved
    sizes = {fmt: sum(_weights(tensors, fmt) for tensors in checkpoints) for fmt in _CHOICES}
    first = next((index for index, fmt in enumerate(_CHOICES) if sizes[fmt] <= room), len(_CHOICES) - 1)
    return [FormatChoice(fmt, "" if fmt == "auto" else _reason(fmt, sizes, available)) for fmt in _CHOICES[first:]]


def _reason(chosen: WeightFormat, sizes: Mapping[WeightFormat, int], available: AvailableMemory) -> str:
    return (
        f"format {chosen}: {format_mb(available.size_bytes)} available ({available.bound}), and the weights as in the "
        f"checkpoint take {format_mb(sizes['auto'])}, in {chosen} {format_mb(sizes[chosen])}; --format overrides it"
    )


def _is_quantized(tensors: Tensors) -> bool:
    return any(format_of(tensor.dtype, "auto", is_table=False) in ("w8", "w5", "w4") for tensor in tensors.values())


def _weights(tensors: Tensors, fmt: WeightFormat) -> int:
    return weights_footprint(tensors, fmt, widened=False, is_packed=False).weights
