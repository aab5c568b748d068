"""What one backend makes of an adapter, held to the reference step by step.

The logits at the end of a forward show only slips that are larger than what rounding makes of them on their way through
all layers, and one module of a hundred may be smaller. So whatever the reference computes with an adapter, the other
backend computes too, with the same input: each product with a matrix by itself, and each step of the forward as the
engine calls it, with its norms. The base's part is then the same, in the products to the last bit, and what differs is
the adapter's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from intaglio.ops import (
    AdapterWeights,
    Array,
    AttentionKind,
    AttentionPlan,
    KVGroup,
    LoraPlan,
    LoraSegment,
    Ops,
    TokenRows,
    Weight,
)
from intaglio.ops.distance import length
from intaglio.ops.reference.adapter_ops import ReferenceAdapterOps


@contextmanager
def single_threaded_numpy() -> Iterator[None]:
    """A context for checks beside a running engine.

    NumPy's matrix products keep to their own thread: an adapter's are small, and threads that wait for more of them
    would take the cores from the kernels. Overflows are no warnings: they are what the checks look for.
    """
    with threadpool_limits(limits=1, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
        yield


_MOST_TOKENS = 1024  # that are looked up in a table to check it


class Checked(Enum):
    """What was computed twice."""

    PRODUCT = auto()  # with one matrix, or a look-up in one
    STEP = auto()  # all that a projection of the forward does, with its norms
    ATTENTION = auto()  # the step that is one, which may magnify what its products are off


@dataclass(frozen=True, slots=True)
class StepCheck:
    """One of them, on the rows that have the adapter; lengths over all of these rows.

    projection   its index in the forward
    place        which of its matrices, or of its results
    error        what the backend is off from the reference
    change       what the adapter changes, by the reference
    size         the result itself
    rounding     how far two runs of the base are apart, as a part of their size: what backend and reference give for
                 the rows of the base in the same batch. 0 where there are none.
    """

    of: Checked
    projection: int
    place: int
    error: float
    change: float
    size: float
    rounding: float


class CrossCheckedOps(ReferenceAdapterOps):
    """The reference over the weights of `backend`, which is checked on the way. For forwards that begin their
    sequences, with one segment of rows that has the adapter.

    adapter  what `backend` made of the adapter that the reference computes with
    is_sum   it can be scaled and mixed
    checks   of all projections that forwards made, in their order
    """

    def __init__(self, backend: Ops, adapter: AdapterWeights, *, is_sum: bool) -> None:
        super().__init__(backend)
        self._adapter = adapter
        self._is_sum = is_sum
        self.checks: list[StepCheck] = []
        self._products: list[Array] = []

    def embedding(
        self, table: Weight, ids: Array, scale: float, plan: LoraPlan | None = None, projection: int = 0
    ) -> Array:
        """Checked with tokens from all over the table, because a text has few of them."""
        if plan:
            (segment,) = plan
            some = _some_tokens(table.shape[0], segment.weights.projections[projection].rows)
            alone = [segment._replace(start=0, stop=len(some))]
            rows = super().embedding(table, some, scale, alone, projection)
            self._check(Checked.PRODUCT, rows, partial(self._base.embedding, table, some, scale), alone, projection)
        return super().embedding(table, ids, scale, plan, projection)

    def rms_norm(self, x: Array, weight: Array, eps: float, plan: LoraPlan | None = None, projection: int = 0) -> Array:
        normed = super().rms_norm(x, weight, eps, plan, projection)
        self._check(Checked.STEP, normed, partial(self._base.rms_norm, x, weight, eps), plan, projection)
        return normed

    def linears(
        self, x: Array, weights: Sequence[Weight], plan: LoraPlan | None = None, projection: int = 0
    ) -> tuple[Array, ...]:
        self._products.clear()
        outputs = super().linears(x, weights, plan, projection)
        if plan and any(pair is not None for pair in plan[0].weights.projections[projection].pairs):
            backend = partial(self._base.linears, np.ascontiguousarray(x), weights)
            self._check(Checked.PRODUCT, outputs, backend, plan, projection, base=tuple(self._products))
        return outputs

    def _product(self, x: Array, weight: Weight) -> Array:
        product = super()._product(x, weight)
        self._products.append(product.copy())  # before the adapter is added to it
        return product

    def self_attention(
        self,
        x: Array,
        qkv: Sequence[Weight],
        kind: AttentionKind,
        cache: KVGroup,
        layer: int,
        plan: AttentionPlan,
        adapters: LoraPlan | None = None,
        projection: int = 0,
    ) -> Array:
        mixed = super().self_attention(x, qkv, kind, cache, layer, plan, adapters, projection)
        own = KVGroup(np.zeros_like(cache.keys[:1]), np.zeros_like(cache.values[:1]))
        rows = self._base.attention_plan(plan, cache.keys.shape[2])
        backend = partial(self._base.self_attention, x, qkv, kind, own, 0, rows)
        self._check(Checked.ATTENTION, mixed, backend, adapters, projection)
        return mixed

    def gated_linear(
        self, x: Array, gate: Weight, up: Weight, adapters: LoraPlan | None = None, projection: int = 0
    ) -> Array:
        gated = super().gated_linear(x, gate, up, adapters, projection)
        self._check(Checked.STEP, gated, partial(self._base.gated_linear, x, gate, up), adapters, projection)
        return gated

    def add_projection(
        self,
        x: Array,
        y: Array,
        weight: Weight,
        post: Array | None,
        norm: Array,
        eps: float,
        adapters: LoraPlan | None = None,
        projection: int = 0,
    ) -> tuple[Array, Array]:
        both = super().add_projection(x, y, weight, post, norm, eps, adapters, projection)
        backend = partial(self._base.add_projection, x, y, weight, post, norm, eps)
        self._check(Checked.STEP, both, backend, adapters, projection)
        return both

    def logits(
        self, x: Array, table: Weight, softcap: float | None, plan: LoraPlan | None = None, projection: int = 0
    ) -> Array:
        logits = super().logits(x, table, softcap, plan, projection)
        changes = [segment.weights.projections[projection] for segment in plan or ()]
        if any(part is not None for change in changes for part in (change.table, change.rows, change.pairs[0])):
            backend = partial(self._base.logits, np.ascontiguousarray(x), table, softcap)
            self._check(Checked.STEP, logits, backend, plan, projection)
        return logits

    def _check(
        self,
        of: Checked,
        results: Array | tuple[Array, ...],
        backend: Callable[[LoraPlan | None, int], Array | tuple[Array, ...]],
        plan: LoraPlan | None,
        projection: int,
        base: tuple[Array, ...] | None = None,
    ) -> None:
        """Note how far results of the reference are from what the backend gives for the same rows. base: without
        adapter, if that is known.
        """
        if not plan:
            return
        (segment,) = plan
        rows = slice(segment.start, segment.stop)
        base = _several(backend(None, projection)) if base is None else base
        same = zip(_several(results), _several(backend(self._mine(segment), projection)), base, strict=True)
        for place, (ours, theirs, bare) in enumerate(same):
            error, change = length(theirs[rows] - ours[rows]), length(ours[rows] - bare[rows])
            rounding = _apart(np.delete(theirs, rows, axis=0), np.delete(ours, rows, axis=0))
            self.checks.append(StepCheck(of, projection, place, error, change, length(ours[rows]), rounding))

    def _mine(self, segment: LoraSegment) -> LoraPlan:
        """The backend's adapter for the same rows: whole for some, as two halves for the others if it is a sum."""
        start, stop, _, scale = segment
        middle = (start + stop) // 2 if self._is_sum else stop
        halves = [LoraSegment(middle, stop, self._adapter, scale / 2)] * (2 if self._is_sum else 0)
        return self._base.lora_plan([LoraSegment(start, middle, self._adapter, scale), *halves])


def _apart(values: Array, others: Array) -> float:
    """The distance of two arrays as a part of the second's length; 0 where that is 0."""
    size = length(others)
    return length(values - others) / size if size else 0.0


def _several(results: Array | tuple[Array, ...]) -> tuple[Array, ...]:
    return results if isinstance(results, tuple) else (results,)


def _some_tokens(vocab_size: int, rows: TokenRows | None) -> Array:
    """[n] int32: spread over a table, with those that an adapter has rows for, or as many of them."""
    spread = np.linspace(0, vocab_size - 1, min(vocab_size, _MOST_TOKENS)).astype(np.int32)
    own = np.asarray([] if rows is None else rows.ids, np.int32)
    return np.union1d(spread, own[:: -(-len(own) // _MOST_TOKENS) or 1])
