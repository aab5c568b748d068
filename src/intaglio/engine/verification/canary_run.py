"""Runs one adapter on the canary text, as it will be served and by the reference, and keeps the logits of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from intaglio.engine.verification.canary import Logits, canary_ids, plain_logits, served_logits
from intaglio.lora.adapter import LoraAdapter
from intaglio.model.gemma import DOWN, EMBEDDING, GATE_UP, HEAD, OUT, QKV, Gemma
from intaglio.ops import AdapterWeights, Ops
from intaglio.ops.cross_check import CheckKind, CrossCheckedOps, StepCheck
from intaglio.ops.distance import RowDistance, row_distance
from intaglio.ops.reference.adapter_ops import ReferenceAdapterOps

_PROJECTIONS = (QKV, OUT, GATE_UP, DOWN)  # the fused projections of one layer, in order

# Relative change that an adapter makes to the products of a forward at which its logits can be compared. Below the
# range the rounding of activations to 8 bits hides it; above, a random adapter makes the model so erratic that it
# amplifies that rounding.
_USABLE_CHANGE = (0.02, 0.15)
_TARGET_CHANGE = 0.05
_PERTURBATION = 2**-8  # the relative increase of an adapter with which the amplification of rounding is measured


@dataclass(frozen=True, slots=True)
class ReferenceLogits:
    """The reference's logits of the base and of the adapter, at the same positions.

    perturbed  the adapter's after a very small change of its scale; None if it was not measured
    """

    base: Logits
    adapted: Logits
    perturbed: Logits | None = None

    def change(self, position: int) -> RowDistance:
        return distance(self.adapted, self.base, position)

    def amplified_rounding(self, position: int) -> float:
        """How far the logits moved with the perturbation; 0 if it was not measured."""
        return 0.0 if self.perturbed is None else distance(self.perturbed, self.adapted, position).length


class CanaryRun:
    """One adapter on the canary text.

    adapter  as in its files, in float32
    weights  as it will be served
    ids      the canary text
    """

    def __init__(self, model: Gemma, ops: Ops, block_size: int, adapter: LoraAdapter, weights: AdapterWeights) -> None:
        self.adapter = adapter
        own = sorted({int(token) for rows in adapter.tensors.rows.values() for token in rows.ids})
        self.ids = canary_ids(model.config.vocab_size, own)
        self._model = model
        self._ops = ops
        self._block_size = block_size
        self._weights = weights
        self._reference_ops = CrossCheckedOps(ops, weights, is_sum=adapter.tensors.is_sum)
        self._reference_model = model.with_ops(self._reference_ops)
        self._tensors = self._reference_model.prepare_adapter(adapter.tensors)

    @property
    def checks(self) -> list[StepCheck]:
        """The comparisons of each product and each step in the reference's forwards so far."""
        return self._reference_ops.checks

    def reference_logits(self, scale: float) -> ReferenceLogits:
        adapters = [None, (self._tensors, scale)]
        base, adapted = plain_logits(self._reference_model, self._reference_ops, self.ids, adapters)
        if self.adapter.tensors.is_sum:
            return ReferenceLogits(base, adapted)
        unchecked = ReferenceAdapterOps(self._ops)
        (perturbed,) = plain_logits(
            self._model.with_ops(unchecked), unchecked, self.ids, [(self._tensors, 1 + _PERTURBATION)]
        )
        return ReferenceLogits(base, adapted, perturbed)

    @cached_property
    def base_alone(self) -> Logits:
        """The served base's logits, with no adapter in the batch."""
        return plain_logits(self._model, self._ops, self.ids, [None])[0]

    def served_logits(self, scale: float) -> list[Logits]:
        """Logits of three sequences in one batch: the base, then the adapter in two ways; see `canary`."""
        is_sum = self.adapter.tensors.is_sum
        return served_logits(self._model, self._ops, self._block_size, self.ids, self._weights, scale, is_sum=is_sum)

    def best_scale(self) -> float:
        """A scale at which the adapter's change is usable, from its change at scale 1. 1 if it cannot be scaled."""
        products = [check for check in self.checks if check.kind is CheckKind.PRODUCT and check.size]
        change = sum((check.change / check.size) ** 2 for check in products)
        if not self.adapter.tensors.is_sum or not change:
            return 1.0
        num_products_per_layer = sum(map(len, _PROJECTIONS))
        num_products = 2 + self._model.config.num_layers * num_products_per_layer  # 2: the embedding and the head
        relative_change = math.sqrt(change / num_products)
        low, high = _USABLE_CHANGE
        if low <= relative_change <= high:
            return 1.0
        return _TARGET_CHANGE / relative_change

    def describe(self, check: StepCheck) -> str:
        """The base's module whose product was compared, or the modules of the compared step."""
        if check.projection == 0:
            return EMBEDDING
        layer, projection = divmod(check.projection - 1, len(_PROJECTIONS))
        if layer == self._model.config.num_layers:
            return HEAD
        if check.kind is CheckKind.PRODUCT:
            return f"layers.{layer}.{_PROJECTIONS[projection][check.place]}"
        return f"layers.{layer}: the step of {', '.join(_PROJECTIONS[projection])} with its norms"


def distance(logits: Logits, others: Logits, position: int) -> RowDistance:
    return row_distance(logits[position], others[position])
