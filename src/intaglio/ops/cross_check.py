"""What one body makes of an adapter, held to the reference step by step.

The logits at the end of a forward show only slips that are larger than what rounding makes of them on their way through
all layers, and one module of a hundred may be smaller. So wherever the reference multiplies with a matrix or looks up a
table, the other body does it too, with the same input. The base's part is then the same to the last bit, and what
differs is the adapter's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from intaglio.ops import Array, LoraPlan, LoraSegment, LoraWeights, Ops, Weight
from intaglio.ops.proving import ReferenceAdapterOps


@contextmanager
def undisturbed() -> Iterator[None]:
    """A context for checks beside a running engine.

    NumPy's matrix products keep to their own thread: an adapter's are small, and threads that wait for more of them
    would take the cores from the kernels. Overflows are no warnings: they are what the checks look for.
    """
    with threadpool_limits(limits=1, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
        yield


@dataclass(frozen=True, slots=True)
class StepCheck:
    """One product with a matrix, or one look-up, on the rows that have the adapter; lengths over all of them.

    call, place  which: the call of the forward, and the matrix in the order of the call
    error        what the body is off from the reference
    change       what the adapter changes, by the reference
    size         the result itself
    """

    call: int
    place: int
    error: float
    change: float
    size: float


class CrossCheckedOps(ReferenceAdapterOps):
    """The reference over the weights of `body`, which is checked on the way.

    adapter  what `body` made of the adapter that the reference computes with
    checks   one per call and matrix that a forward meets, in its order
    """

    def __init__(self, body: Ops, adapter: LoraWeights) -> None:
        super().__init__(body)
        self._adapter = adapter
        self.checks: list[StepCheck] = []

    def embedding(self, table: Weight, ids: Array, scale: float, plan: LoraPlan | None = None, call: int = 0) -> Array:
        expected = super().embedding(table, ids, scale, plan, call)
        if plan:
            given = self._base.embedding(table, ids, scale, self._mine(plan), call)
            self._note(plan, call, [expected], [given], [self._base.embedding(table, ids, scale)])
        return expected

    def linears(
        self, x: Array, weights: Sequence[Weight], plan: LoraPlan | None = None, call: int = 0
    ) -> tuple[Array, ...]:
        expected = super().linears(x, weights, plan, call)
        if plan:
            x = np.ascontiguousarray(x)
            given = self._base.linears(x, weights, self._mine(plan), call)
            self._note(plan, call, expected, given, self._base.linears(x, weights))
        return expected

    def logits(
        self, x: Array, table: Weight, softcap: float | None, plan: LoraPlan | None = None, call: int = 0
    ) -> Array:
        expected = super().logits(x, table, softcap, plan, call)  # by `linears`, but for what replaces the table
        changes = [segment.weights.calls[call] for segment in plan or ()]
        if plan and any(change.table is not None or change.rows is not None for change in changes):
            x = np.ascontiguousarray(x)
            given = self._base.logits(x, table, softcap, self._mine(plan), call)
            self._note(plan, call, [expected], [given], [self._base.logits(x, table, softcap)])
        return expected

    def _mine(self, plan: Sequence[LoraSegment]) -> LoraPlan:
        return self._base.lora_plan([segment._replace(weights=self._adapter) for segment in plan])

    def _note(
        self,
        plan: Sequence[LoraSegment],
        call: int,
        expected: Sequence[Array],
        given: Sequence[Array],
        bare: Sequence[Array],
    ) -> None:
        rows = np.concatenate([np.arange(segment.start, segment.stop) for segment in plan])
        for place, (ours, theirs, base) in enumerate(zip(expected, given, bare, strict=True)):
            error, change = _length(theirs[rows] - ours[rows]), _length(ours[rows] - base[rows])
            self.checks.append(StepCheck(call, place, error, change, _length(ours[rows])))


def _length(values: Array) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).sum()))
