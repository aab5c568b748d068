"""Proves an adapter: runs it on a short text as it will be served, and holds that to the arithmetic of its own files.

    1. Product by product and step by step: wherever the adapter meets a matrix or a norm of the base, its packed form
       gives what the float32 tensors of its files give on the same input, alone and as two halves. This sees a slip in
       one module, however small the adapter. And somewhere it has to change a result by more than rounding does, which
       is measured beside it, on the rows of the base: else it has no effect.
    2. From end to end: the logits that the engine's steps give, beside rows of the base and of a mix, agree with those
       of the reference. This sees what lies around the products: segments, scales, norms, caches, decoding.

For 2 an adapter that is a sum is taken at a scale at which it is heard well: `Trial.best_scale`. Another one can only
be taken as it is; how much it magnifies rounding is tried out: `ReferenceLogits.shaken`.

The tolerances were measured; docs/decisions/0004-proving-adapters.md has the figures, and what a proof cannot see.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Mapping

from intaglio.engine.trial import ReferenceLogits, Trial, distance
from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.packing import AdapterDtype
from intaglio.model.gemma import HEAD, Gemma
from intaglio.ops import LoraWeights, Ops
from intaglio.ops.cross_check import Checked, StepCheck, undisturbed
from intaglio.request import Proof

logger = logging.getLogger(__name__)

# What a result may be off: a part of what the adapter changes, and of the result itself, which float32 rounds.
_TOLERANCE: Mapping[AdapterDtype, float] = {"float32": 1e-3, "float16": 1e-2, "int8": 0.2}
_ROUNDING: Mapping[Checked, float] = {Checked.PRODUCT: 2e-7, Checked.STEP: 1e-5, Checked.ATTENTION: 1e-5}
# What a step makes of what its products are off: gate and up are multiplied, and scores go through a softmax. It is
# never off more than _MOST of what the adapter changes.
_MAGNIFIED: Mapping[Checked, float] = {Checked.PRODUCT: 1.0, Checked.STEP: 2.0, Checked.ATTENTION: 10.0}
_MOST = 0.3

# An adapter has an effect where it changes a result by this many times what rounding does to it. Rounding is what two
# runs of the base in the same batch differ by, and the last bit of a float32 at least: every result is rounded to that.
_CLEAR = 8.0
_LAST_BIT = 2.0**-23

# What logits may be off: a part of what the adapter changes, and so often what rounding does to them, which is what the
# served base is off from its own reference, or more if the adapter magnifies it.
_LOGIT_TOLERANCE = 0.5
_NOISE_TOLERANCE = 4.0
# Of the logits' length: what rounding may do to the adapter's where it happens to do nothing to the base's.
_LEAST_NOISE = 4e-3
# What the base's rows may be off from the base alone: nothing with kernels whose rows are independent to the last bit.
_BASE_TOLERANCE = 1e-4


class Prover:
    """Proves adapters of one type on one model, one at a time: `AdapterLoader` sees to that.

    block_size  of the engine's KV cache
    """

    def __init__(self, model: Gemma, ops: Ops, block_size: int, dtype: AdapterDtype) -> None:
        self._model = model
        self._ops = ops
        self._block_size = block_size
        self._tolerance = _TOLERANCE[dtype]

    def prove(self, adapter: LoraAdapter, weights: LoraWeights) -> Proof:
        """Run an adapter on the canary.

        adapter  as its files have it, in float32
        weights  as it will be served
        Raises AdapterError saying what was found if it changes nothing, gives no finite logits or does not agree.
        """
        with undisturbed():
            began = time.monotonic()
            proof = self._judge(Trial(self._model, self._ops, self._block_size, adapter, weights), began)
        logger.info("adapter %s proven in %.2f s: agreement %.4f", adapter.digest[:12], proof.seconds, proof.agreement)
        return proof

    def _judge(self, trial: Trial, began: float) -> Proof:
        reference = trial.reference(1.0)
        self._check_steps(trial)
        changes = [reference.change(position) for position in reference.base]
        if not all(math.isfinite(change.length) for change in changes):
            raise _not_finite(HEAD)
        _check_effect(trial)
        scale = trial.best_scale()
        if scale != 1:
            reference = trial.reference(scale)
            self._check_steps(trial)
        # What a weak adapter does to logits is lost in what rounding does to them: it is taken where it is heard.
        weaker = max(scale, 1.0)
        if weaker > 1:
            changes = [reference.change(position) for position in reference.base]
        agreed = _check_logits(trial, reference, scale)
        return Proof(
            num_modules=trial.adapter.num_modules,
            rank=trial.adapter.rank,
            scalable=trial.adapter.tensors.is_sum,
            largest_change=max(change.largest for change in changes) / weaker,
            mean_change=statistics.fmean(change.mean for change in changes) / weaker,
            agreement=agreed,
            num_tokens=len(trial.ids),
            seconds=time.monotonic() - began,
        )

    def _allowed(self, check: StepCheck) -> float:
        part = min(_MAGNIFIED[check.of] * self._tolerance, _MOST)
        return part * check.change + _ROUNDING[check.of] * check.size

    def _check_steps(self, trial: Trial) -> None:
        for check in trial.checks:
            if not math.isfinite(check.size):
                raise _not_finite(trial.name(check))
            allowed = self._allowed(check)
            if not check.error <= allowed:
                raise AdapterError(
                    f"{trial.name(check)} as served is off by {check.error:.3g} from what the adapter's files give, "
                    f"which change it by {check.change:.3g}; {allowed:.3g} would do"
                )


def _not_finite(first: str) -> AdapterError:
    return AdapterError(f"with the adapter the values are not finite numbers; {first} is the first that is not")


def _check_effect(trial: Trial) -> None:
    """At scale 1. Logits would not tell: where activations are rounded to 8 bits, a change in the last bit of one
    activation moves the logits as far as a weak adapter does.
    """
    strongest = max(trial.checks, key=_clearness)
    if _clearness(strongest) <= _CLEAR:
        raise AdapterError(
            "the adapter changes nothing: its largest change is "
            f"{_part_changed(strongest):.1e} of a result "
            f"({trial.name(strongest).rstrip(',')}), where rounding alone is {_rounding(strongest):.1e}; an effect is "
            f"more than {_CLEAR:g} times that"
        )


def _rounding(check: StepCheck) -> float:
    """What rounding does to a result, as a part of it."""
    return max(check.rounding, _LAST_BIT)


def _clearness(check: StepCheck) -> float:
    """How many times what rounding does to a result the adapter does to it."""
    return _part_changed(check) / _rounding(check)


def _part_changed(check: StepCheck) -> float:
    """What the adapter changes, as a part of the result; 1 where it takes all of it away."""
    size = max(check.size, check.change)
    return check.change / size if size else 0.0


def _check_logits(trial: Trial, reference: ReferenceLogits, scale: float) -> float:
    """How far what is served agrees with the reference, as `Proof.agreement` has it."""
    base, *adapted = trial.served(scale)
    for position in base:
        apart = distance(base, trial.base_alone, position)
        if not apart.length <= _BASE_TOLERANCE * apart.size:
            raise AdapterError(f"beside the adapter the base's logits change by up to {apart.largest:.3g}")
    noise = max(_noise(trial, reference, position) for position in reference.base)
    error = change = 0.0
    for logits in adapted:
        for position in logits:
            off, moved = distance(logits, reference.adapted, position).length, reference.change(position).length
            allowed = _LOGIT_TOLERANCE * moved + _NOISE_TOLERANCE * noise
            if not off <= allowed:
                raise AdapterError(
                    f"at scale {scale:.3g} the served logits of token {position} are off by {off:.3g} from the "
                    f"reference; the adapter changes {moved:.3g} there, and {allowed:.3g} would do"
                )
            error, change = math.hypot(error, off), math.hypot(change, moved)
    return agreement(error, change)


def agreement(error: float, change: float) -> float:
    """From 0 to 1: how little logits are off, beside what the adapter changes. `Proof.agreement`."""
    return max(0.0, 1 - error / change) if change else 0.0


def _noise(trial: Trial, reference: ReferenceLogits, position: int) -> float:
    """What rounding does to the logits, of the base or of the adapter, so far as one text shows it."""
    base = distance(trial.base_alone, reference.base, position)
    return max(base.length, reference.unrest(position), _LEAST_NOISE * base.size)
