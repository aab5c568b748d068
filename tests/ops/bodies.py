"""Every body of `Ops` that this machine can run, by name: NumPy, and the kernels of each instruction set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from intaglio.ops import AdapterCall, LoraPair, LoraWeights, Ops
from intaglio.ops.cpu import CpuOps, instruction_sets
from intaglio.ops.reference import ReferenceOps

KERNELS = tuple(instruction_sets())
BODIES = ("reference", *KERNELS)

SIZES = (1, 2, 3, 7, 133)


def body(name: str, threads: int = 2) -> Ops:
    return ReferenceOps() if name == "reference" else CpuOps(threads, name)


@cache
def shared_kernels(name: str, threads: int) -> CpuOps:
    """The same for every test and example that asks: starting threads takes longer than most of them."""
    return CpuOps(threads, name)


def lora_weights(ops: Ops, calls: Sequence[Sequence[LoraPair | None]]) -> LoraWeights:
    """An adapter of low-rank pairs alone, call by call; a body looks at the base's matrices for a magnitude only."""
    return ops.lora_weights([AdapterCall([None] * len(pairs), pairs) for pairs in calls])
