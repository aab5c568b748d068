"""The dtype the frozen base computes in, chosen by measurement: no list of processors is complete.

A processor with instructions for bfloat16 multiplies it at several times the speed of float32. One without them
emulates it, and torch multiplies some layouts of it in a plain loop on one core: on an AMD EPYC with AVX2, torch 2.13
gave 0.2 to 1.1 GMAC/s for the backward product where float32 gave 18 to 33 (one core each).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from intaglio.model.config import ModelConfig

if TYPE_CHECKING:
    import torch

BaseDtype = Literal["float32", "bfloat16"]
BASE_DTYPES: tuple[BaseDtype, ...] = ("float32", "bfloat16")
ITEM_BYTES: dict[BaseDtype, int] = {"float32": 4, "bfloat16": 2}

# bfloat16 has to be this much faster to be chosen. It rounds to 8 bits, so float32 is preferred where the speeds are
# close, and noise in one measurement must not decide.
_MIN_SPEEDUP = 1.5
_ROWS = 64  # tokens of the measured products: fewer than in most batches, and enough for full speed
_MAX_WIDTH = 2048  # of the measured matrices' inputs and outputs, so that measuring a large base takes no longer
_REPEATS = 5
_LONG_S = 0.1  # a product that takes longer is run only twice, which is enough to recognize emulation


@dataclass(frozen=True, slots=True)
class Speed:
    """GMAC/s (billions of multiply-adds in a second): activations by weights, and gradients by weights."""

    forward: float
    backward: float

    @property
    def both(self) -> float:
        """The speed of a forward and a backward product, one after the other."""
        return 2 / (1 / self.forward + 1 / self.backward)

    def __str__(self) -> str:
        return f"{self.forward:.3g} GMAC/s forward and {self.backward:.3g} backward"


@dataclass(frozen=True, slots=True)
class ChosenDtype:
    """name: the dtype; reason: why it was chosen, for messages."""

    name: BaseDtype
    reason: str


def faster_dtype(speeds: Mapping[BaseDtype, Speed]) -> ChosenDtype:
    """The dtype to train with, from the measured speeds of both."""
    float32, bfloat16 = speeds["float32"], speeds["bfloat16"]
    name: BaseDtype = "bfloat16" if bfloat16.both > _MIN_SPEEDUP * float32.both else "float32"
    return ChosenDtype(name, f"measured here: float32 {float32}, bfloat16 {bfloat16}")


def measure_speeds(config: ModelConfig) -> dict[BaseDtype, Speed]:
    """The speed of each dtype on matrices of a layer's shapes, with the threads that torch has now.

    The dtypes alternate at each shape, so that other load on the machine affects both.
    """
    seconds: dict[BaseDtype, list[float]] = {dtype: [0.0, 0.0] for dtype in BASE_DTYPES}
    shapes = sorted({_within_max_width(shape) for shape in config.linear_layer_shapes().values()})
    for shape in shapes:
        for dtype in BASE_DTYPES:
            for direction, product in enumerate(_products(shape, dtype)):
                seconds[dtype][direction] += _seconds(product)
    work = _ROWS * sum(outputs * inputs for outputs, inputs in shapes) / 1e9
    return {dtype: Speed(work / forward, work / backward) for dtype, (forward, backward) in seconds.items()}


def _within_max_width(shape: tuple[int, ...]) -> tuple[int, int]:
    outputs, inputs = shape
    return min(outputs, _MAX_WIDTH), min(inputs, _MAX_WIDTH)


def _products(shape: tuple[int, int], dtype: BaseDtype) -> Iterator[Callable[[], torch.Tensor]]:
    """The two products of a frozen linear layer: forward, and of the gradient with the weights."""
    import torch

    outputs, inputs = shape
    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)  # does not change the training's random numbers

    def filled(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator).to(kind)

    weight, states, gradient = filled(outputs, inputs), filled(_ROWS, inputs), filled(_ROWS, outputs)
    yield lambda: torch.nn.functional.linear(states, weight)
    yield lambda: gradient @ weight


def _seconds(product: Callable[[], object]) -> float:
    """Wall time of one product: the best of a few runs, or of two if they are long."""
    best = float("inf")
    for repeat in range(_REPEATS):
        start = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - start)
        if repeat and best > _LONG_S:  # the first call of a process also starts threads and loads code
            break
    return best
