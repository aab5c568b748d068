"""The backends of `Ops` that are tested, by name, and adapters for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from intaglio.ops import AdapterCall, LoraPair, LoraWeights, Ops
from tests.helpers.kernels import BACKENDS as BODIES
from tests.helpers.kernels import KERNELS
from tests.helpers.kernels import backend as body

__all__ = ["BODIES", "KERNELS", "SIZES", "body", "lora_weights", "shared_kernels"]

SIZES = (1, 2, 3, 7, 133)


@cache
def shared_kernels(name: str, threads: int) -> Ops:
    """The same for every test and example that asks: starting threads takes longer than most of them."""
    return body(name, threads)


def lora_weights(ops: Ops, calls: Sequence[Sequence[LoraPair | None]]) -> LoraWeights:
    """An adapter of low-rank pairs alone, call by call; a body looks at the base's matrices for a magnitude only."""
    return ops.lora_weights([AdapterCall([None] * len(pairs), pairs) for pairs in calls])
