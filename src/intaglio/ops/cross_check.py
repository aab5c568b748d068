"""Compares a backend's results for an adapter with the reference, step by step.

The logits of a forward show only errors that are larger than the rounding that accumulates over all layers, and an
error in one module of a hundred may be smaller. So the backend computes, from the same input, everything that the
reference computes with an adapter: each product with one matrix, and each step of the forward as the engine calls it,
with its norms. The base's part is then equal, in the products to the last bit, and any difference is due to the
adapter.
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
    """A context for checks while an engine runs in the same process.

    NumPy's matrix products use one thread: an adapter's are small, and idle BLAS threads that spin would use the cores
    that the kernels need. Overflows cause no warnings: the checks detect them.
    """
    with threadpool_limits(limits=1, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
        yield


_MAX_TOKENS = 1024  # how many are looked up to check a table


class CheckKind(Enum):
    """What both backends computed."""

    PRODUCT = auto()  # the product with one matrix, or a lookup in one
    STEP = auto()  # a whole projection of the forward, with its norms
    ATTENTION = auto()  # the attention step, which may magnify the errors of its products


@dataclass(frozen=True, slots=True)
class StepCheck:
    """One comparison, on the rows that have the adapter. error, change and size are norms over all of these rows.

    projection   the index of the projection in the forward
    place        which of the projection's matrices, or of its results
    error        of the backend's result minus the reference's
    change       of the adapter's change, by the reference
    size         of the result
    rounding     relative distance of backend and reference on the rows without adapter in the same batch; 0 if there
                 are none
    """

    kind: CheckKind
    projection: int
    place: int
    error: float
    change: float
    size: float
    rounding: float


class CrossCheckedOps(ReferenceAdapterOps):
    """The reference over the weights of `backend`, compared with `backend` at every step. For forwards over whole
    prompts, with one segment of rows that has the adapter.

    adapter  the adapter of these forwards as `backend` prepared it
    is_sum   whether it can be scaled and mixed
    checks   the comparisons of the forwards so far, in their order
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
        """CheckKind with tokens from all over the table, because a text has few of them."""
        if plan:
            (segment,) = plan
            tokens = _tokens_to_check(table.shape[0], segment.weights.projections[projection].rows)
            alone = [segment._replace(start=0, stop=len(tokens))]
            rows = super().embedding(table, tokens, scale, alone, projection)
            backend = partial(self._base.embedding, table, tokens, scale)
            self._check(CheckKind.PRODUCT, rows, backend, alone, projection)
        return super().embedding(table, ids, scale, plan, projection)

    def rms_norm(self, x: Array, weight: Array, eps: float, plan: LoraPlan | None = None, projection: int = 0) -> Array:
        normed = super().rms_norm(x, weight, eps, plan, projection)
        self._check(CheckKind.STEP, normed, partial(self._base.rms_norm, x, weight, eps), plan, projection)
        return normed

    def linears(
        self, x: Array, weights: Sequence[Weight], plan: LoraPlan | None = None, projection: int = 0
    ) -> tuple[Array, ...]:
        self._products.clear()
        outputs = super().linears(x, weights, plan, projection)
        if plan and any(pair is not None for pair in plan[0].weights.projections[projection].pairs):
            backend = partial(self._base.linears, np.ascontiguousarray(x), weights)
            self._check(CheckKind.PRODUCT, outputs, backend, plan, projection, base=tuple(self._products))
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
        self._check(CheckKind.ATTENTION, mixed, backend, adapters, projection)
        return mixed

    def gated_linear(
        self, x: Array, gate: Weight, up: Weight, adapters: LoraPlan | None = None, projection: int = 0
    ) -> Array:
        gated = super().gated_linear(x, gate, up, adapters, projection)
        self._check(CheckKind.STEP, gated, partial(self._base.gated_linear, x, gate, up), adapters, projection)
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
        self._check(CheckKind.STEP, both, backend, adapters, projection)
        return both

    def logits(
        self, x: Array, table: Weight, softcap: float | None, plan: LoraPlan | None = None, projection: int = 0
    ) -> Array:
        logits = super().logits(x, table, softcap, plan, projection)
        changes = [segment.weights.projections[projection] for segment in plan or ()]
        if any(part is not None for change in changes for part in (change.table, change.rows, change.pairs[0])):
            backend = partial(self._base.logits, np.ascontiguousarray(x), table, softcap)
            self._check(CheckKind.STEP, logits, backend, plan, projection)
        return logits

    def _check(
        self,
        kind: CheckKind,
        results: Array | tuple[Array, ...],
        backend: Callable[[LoraPlan | None, int], Array | tuple[Array, ...]],
        plan: LoraPlan | None,
        projection: int,
        base: tuple[Array, ...] | None = None,
    ) -> None:
        """Record the distance of the reference's results from the backend's for the same rows. base: the result without
        adapter, if it is known.
        """
        if not plan:
            return
        (segment,) = plan
        rows = slice(segment.start, segment.stop)
        base = _as_tuple(backend(None, projection)) if base is None else base
        same = zip(_as_tuple(results), _as_tuple(backend(self._backend_plan(segment), projection)), base, strict=True)
        for place, (ours, theirs, bare) in enumerate(same):
            error, change = length(theirs[rows] - ours[rows]), length(ours[rows] - bare[rows])
            rounding = _relative_distance(np.delete(theirs, rows, axis=0), np.delete(ours, rows, axis=0))
            self.checks.append(StepCheck(kind, projection, place, error, change, length(ours[rows]), rounding))

    def _backend_plan(self, segment: LoraSegment) -> LoraPlan:
        """The backend's plan for the segment's rows. If the adapter is a sum, the second half of the rows has it twice,
        at half the scale.
        """
        start, stop, _, scale = segment
        middle = (start + stop) // 2 if self._is_sum else stop
        halves = [LoraSegment(middle, stop, self._adapter, scale / 2)] * (2 if self._is_sum else 0)
        return self._base.lora_plan([LoraSegment(start, middle, self._adapter, scale), *halves])


def _relative_distance(values: Array, others: Array) -> float:
    """The distance of two arrays relative to the norm of the second; 0 if that is 0."""
    size = length(others)
    return length(values - others) / size if size else 0.0


def _as_tuple(results: Array | tuple[Array, ...]) -> tuple[Array, ...]:
    return results if isinstance(results, tuple) else (results,)


def _tokens_to_check(vocab_size: int, rows: TokenRows | None) -> Array:
    """[n] int32: ids spread over a table, and ids that the adapter has rows for, at most _MAX_TOKENS of each."""
    spread = np.linspace(0, vocab_size - 1, min(vocab_size, _MAX_TOKENS)).astype(np.int32)
    own = np.asarray([] if rows is None else rows.ids, np.int32)
    return np.union1d(spread, own[:: -(-len(own) // _MAX_TOKENS) or 1])
