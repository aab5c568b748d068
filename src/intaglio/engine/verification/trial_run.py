"""One adapter on the canary: what its forwards gave, as served and by the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from intaglio.engine.verification.canary import Logits, canary_ids, plain, served
from intaglio.lora.adapter import LoraAdapter
from intaglio.model.gemma import DOWN, EMBEDDING, GATE_UP, HEAD, OUT, QKV, Gemma
from intaglio.ops import AdapterWeights, Ops
from intaglio.ops.cross_check import Checked, CrossCheckedOps, StepCheck
from intaglio.ops.distance import RowDistance, row_distance
from intaglio.ops.reference_adapter_ops import ReferenceAdapterOps

_CALLS = (QKV, OUT, GATE_UP, DOWN)  # of one layer

# What an adapter changes of the products of a forward, as a part of them. Below, the rounding of activations to 8 bits
# drowns it; above, a random adapter makes a model so erratic that it magnifies that rounding.
_HEARD = (0.02, 0.15)
_WELL_HEARD = 0.05
# Where the scale cannot be chosen, how far such rounding gets is tried out: this much more of the adapter.
_SHAKE = 2**-8


@dataclass(frozen=True, slots=True)
class ReferenceLogits:
    """The base's and the adapter's, at the same positions; and the adapter's again when something very small is done
    to it, if that was tried.
    """

    base: Logits
    adapted: Logits
    shaken: Logits | None = None

    def change(self, position: int) -> RowDistance:
        return distance(self.adapted, self.base, position)

    def unrest(self, position: int) -> float:
        """What the very small thing did to the logits."""
        return 0.0 if self.shaken is None else distance(self.shaken, self.adapted, position).length


class TrialRun:
    """adapter: as its files have it, in float32. weights: as it will be served. ids: the canary."""

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
        """Each product and each step of the reference's forwards so far."""
        return self._reference_ops.checks

    def reference(self, scale: float) -> ReferenceLogits:
        adapters = [None, (self._tensors, scale)]
        base, adapted = plain(self._reference_model, self._reference_ops, self.ids, adapters)
        if self.adapter.tensors.is_sum:
            return ReferenceLogits(base, adapted)
        unchecked = ReferenceAdapterOps(self._ops)
        (shaken,) = plain(self._model.with_ops(unchecked), unchecked, self.ids, [(self._tensors, 1 + _SHAKE)])
        return ReferenceLogits(base, adapted, shaken)

    @cached_property
    def base_alone(self) -> Logits:
        """As served, without the adapter."""
        return plain(self._model, self._ops, self.ids, [None])[0]

    def served(self, scale: float) -> list[Logits]:
        """The base beside the adapter, then the adapter in two ways: see `canary.served`."""
        is_sum = self.adapter.tensors.is_sum
        return served(self._model, self._ops, self._block_size, self.ids, self._weights, scale, is_sum=is_sum)

    def best_scale(self) -> float:
        """At which the adapter is heard well, by what it changes at scale 1. 1 if only that makes sense."""
        products = [check for check in self.checks if check.of is Checked.PRODUCT and check.size]
        heard = sum((check.change / check.size) ** 2 for check in products)
        if not self.adapter.tensors.is_sum or not heard:
            return 1.0
        num_products = 2 + self._model.config.num_layers * sum(map(len, _CALLS))  # with the embedding and the head
        strength = math.sqrt(heard / num_products)
        low, high = _HEARD
        if low <= strength <= high:
            return 1.0
        return _WELL_HEARD / strength

    def name(self, check: StepCheck) -> str:
        """The module of the base that a product belongs to, or the modules of a step."""
        if check.call == 0:
            return EMBEDDING
        layer, call = divmod(check.call - 1, len(_CALLS))
        if layer == self._model.config.num_layers:
            return HEAD
        if check.of is Checked.PRODUCT:
            return f"layers.{layer}.{_CALLS[call][check.place]}"
        return f"layers.{layer}, the step of {', '.join(_CALLS[call])} with its norms,"


def distance(logits: Logits, others: Logits, position: int) -> RowDistance:
    return row_distance(logits[position], others[position])
