"""Verifies an adapter: runs it on a short text as it will be served and compares that with its files' float32 tensors.

    1. Step by step: wherever the adapter changes a product or a norm of the base, its packed form must give what the
       float32 tensors give on the same input, alone and as two halves. This finds a fault in a single module, however
       weak the adapter. At least one result must change by more than rounding, which is measured on the base's rows of
       the same batch; otherwise the adapter has no effect and is refused.
    2. End to end: the logits of the engine's own steps, computed beside rows of the base and of a mix, must agree with
       the reference's. This finds faults outside the products: segments, scales, norms, caches, decoding.

For 2, a purely additive adapter is run at a scale at which its effect stands out: `TrialRun.best_scale`. Any other runs
unscaled, and how far it magnifies rounding is measured: `ReferenceLogits.shaken`.

Decision 0004 (docs/decisions) has the measurements behind the tolerances, and what verification cannot detect.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Mapping

from intaglio.engine.verification.trial_run import ReferenceLogits, TrialRun, distance
from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.packing import AdapterDtype
from intaglio.model.gemma import HEAD, Gemma
from intaglio.ops import AdapterWeights, Ops
from intaglio.ops.cross_check import Checked, StepCheck, undisturbed
from intaglio.request import Verification

logger = logging.getLogger(__name__)

# Allowed error of a result: this part of the adapter's change, plus this part of the result itself (float32 rounding).
_TOLERANCE: Mapping[AdapterDtype, float] = {"float32": 1e-3, "float16": 1e-2, "int8": 0.2}
_ROUNDING: Mapping[Checked, float] = {Checked.PRODUCT: 2e-7, Checked.STEP: 1e-5, Checked.ATTENTION: 1e-5}
# How much a step may magnify the errors of its products: gate and up are multiplied, scores go through a softmax. The
# allowed error never exceeds _MOST of the adapter's change.
_MAGNIFIED: Mapping[Checked, float] = {Checked.PRODUCT: 1.0, Checked.STEP: 2.0, Checked.ATTENTION: 10.0}
_MOST = 0.3

# An adapter has an effect where it changes a result by this many times what rounding does to it. Rounding is what two
# runs of the base in the same batch differ by, and the last bit of a float32 at least: every result is rounded to that.
_CLEAR = 8.0
_LAST_BIT = 2.0**-23

# Allowed error of logits: this part of the adapter's change, plus this many times the rounding error. That is how far
# the served base is from its own reference, or more if the adapter magnifies rounding.
_LOGIT_TOLERANCE = 0.5
_NOISE_TOLERANCE = 4.0
# Least rounding error assumed, as a part of the logits' norm, for texts on which the base happens to show none.
_LEAST_NOISE = 4e-3
# What the base's rows may be off from the base alone: nothing with kernels whose rows are independent to the last bit.
_BASE_TOLERANCE = 1e-4


class Verifier:
    """Verifies adapters of one type on one model, one at a time: `AdapterLoader` sees to that.

    block_size  of the engine's KV cache
    """

    def __init__(self, model: Gemma, ops: Ops, block_size: int, dtype: AdapterDtype) -> None:
        self._model = model
        self._ops = ops
        self._block_size = block_size
        self._tolerance = _TOLERANCE[dtype]

    def verify(self, adapter: LoraAdapter, weights: AdapterWeights) -> Verification:
        """Run an adapter on the canary.

        adapter  as its files have it, in float32
        weights  as it will be served
        Raises AdapterError saying what was found if it changes nothing, gives no finite logits or does not agree.
        """
        with undisturbed():
            began = time.monotonic()
            verification = self._judge(TrialRun(self._model, self._ops, self._block_size, adapter, weights), began)
        logger.info(
            "adapter %s verified in %.2f s: agreement %.4f",
            adapter.digest[:12],
            verification.seconds,
            verification.agreement,
        )
        return verification

    def _judge(self, trial: TrialRun, began: float) -> Verification:
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
        return Verification(
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

    def _check_steps(self, trial: TrialRun) -> None:
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


def _check_effect(trial: TrialRun) -> None:
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
    """The adapter's change of a result, as a multiple of rounding's."""
    return _part_changed(check) / _rounding(check)


def _part_changed(check: StepCheck) -> float:
    """What the adapter changes, as a part of the result; 1 where it takes all of it away."""
    size = max(check.size, check.change)
    return check.change / size if size else 0.0


def _check_logits(trial: TrialRun, reference: ReferenceLogits, scale: float) -> float:
    """How far what is served agrees with the reference, as `Verification.agreement` has it."""
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
    """From 0 to 1: how little logits are off, beside what the adapter changes. `Verification.agreement`."""
    return max(0.0, 1 - error / change) if change else 0.0


def _noise(trial: TrialRun, reference: ReferenceLogits, position: int) -> float:
    """What rounding does to the logits, of the base or of the adapter, so far as one text shows it."""
    base = distance(trial.base_alone, reference.base, position)
    return max(base.length, reference.unrest(position), _LEAST_NOISE * base.size)
