"""The backends of `Ops` that are tested, by name, and adapters for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from intaglio.ops import AdapterProjection, AdapterWeights, LoraPair, Ops
from tests.helpers.kernels import BACKENDS, KERNELS, backend

__all__ = ["BACKENDS", "KERNELS", "SIZES", "adapter_weights", "backend", "shared_kernels"]

SIZES = (1, 2, 3, 7, 133)


@cache
def shared_kernels(name: str, threads: int) -> Ops:
    """The same for every test and example that asks: starting threads takes longer than most of them."""
    return backend(name, threads)


def adapter_weights(ops: Ops, calls: Sequence[Sequence[LoraPair | None]]) -> AdapterWeights:
    """An adapter of low-rank pairs alone, call by call; a backend looks at the base's matrices for a magnitude only."""
    return ops.adapter_weights([AdapterProjection([None] * len(pairs), pairs) for pairs in calls])
