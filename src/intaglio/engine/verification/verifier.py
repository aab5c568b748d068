"""Verifies an adapter: runs it on a short text as it will be served and compares that with the float32 reference.

    1. Step by step: wherever the adapter changes a product or a norm of the base, its packed form must agree with the
       float32 tensors of its files on the same input, alone and as two halves. This finds a fault in a single module,
       however weak the adapter. At least one result must change by more than rounding, which is measured on the base's
       rows of the same batch; otherwise the adapter has no effect and is refused.
    2. End to end: the logits of the engine's own steps, computed beside rows of the base and of a mix, must agree with
       the reference's. This finds faults outside the products: segments, scales, norms, caches, decoding.

For 2, an additive adapter runs at a scale at which its effect stands out from rounding: `CanaryRun.best_scale`. Any
other adapter runs unscaled, and how far it amplifies rounding is measured: `ReferenceLogits.amplified_rounding`.

Decision 0004 (docs/decisions) has the measurements that the tolerances come from, and what verification cannot detect.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Mapping

from intaglio.engine.verification.canary_run import CanaryRun, ReferenceLogits, distance
from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.packing import AdapterDtype
from intaglio.model.gemma import HEAD, Gemma
from intaglio.ops import AdapterWeights, Ops
from intaglio.ops.cross_check import CheckKind, StepCheck, single_threaded_numpy
from intaglio.request import Verification

logger = logging.getLogger(__name__)

# Allowed error of a result: this fraction of the adapter's change, plus this fraction of the result (float32 rounding).
_TOLERANCE: Mapping[AdapterDtype, float] = {"float32": 1e-3, "float16": 1e-2, "int8": 0.2}
_ROUNDING: Mapping[CheckKind, float] = {CheckKind.PRODUCT: 2e-7, CheckKind.STEP: 1e-5, CheckKind.ATTENTION: 1e-5}
# How much a step may amplify the errors of its products: gate and up are multiplied, scores go through a softmax. The
# allowed error never exceeds the fraction _MAX_TOLERANCE of the adapter's change.
_AMPLIFICATION: Mapping[CheckKind, float] = {CheckKind.PRODUCT: 1.0, CheckKind.STEP: 2.0, CheckKind.ATTENTION: 10.0}
_MAX_TOLERANCE = 0.3

# An adapter has an effect if it changes a result by more than this many times the rounding error. That error is the
# difference between two runs of the base in the same batch, and at least the last bit of a float32.
_LEAST_EFFECT = 8.0
_LAST_BIT = 2.0**-23

# Allowed error of logits: this fraction of the adapter's change, plus this many times the rounding error (`_noise`).
_LOGIT_TOLERANCE = 0.5
_NOISE_TOLERANCE = 4.0
# The least rounding error that is assumed, as a fraction of the logits' norm: a short text may happen to show none.
_LEAST_NOISE = 4e-3
# Allowed relative error of the base's rows against the base alone: 0 with kernels whose rows are independent.
_BASE_TOLERANCE = 1e-4


class Verifier:
    """Verifies adapters of one type on one model, one at a time (`AdapterLoader` has the lock).

    block_size  of the engine's KV cache
    """

    def __init__(self, model: Gemma, ops: Ops, block_size: int, dtype: AdapterDtype) -> None:
        self._model = model
        self._ops = ops
        self._block_size = block_size
        self._tolerance = _TOLERANCE[dtype]

    def verify(self, adapter: LoraAdapter, weights: AdapterWeights) -> Verification:
        """Run an adapter on the canary text.

        adapter  as in its files, in float32
        weights  as it will be served
        Raises AdapterError with what was measured and its bound, if the adapter changes nothing, gives values that are
        not finite, or does not agree with the reference.
        """
        with single_threaded_numpy():
            began = time.monotonic()
            run = CanaryRun(self._model, self._ops, self._block_size, adapter, weights)
            verification = self._verify_run(run, began)
        logger.info(
            "adapter %s verified in %.2f s: agreement %.4f",
            adapter.digest[:12],
            verification.seconds,
            verification.agreement,
        )
        return verification

    def _verify_run(self, run: CanaryRun, began: float) -> Verification:
        reference = run.reference_logits(1.0)
        self._check_steps(run)
        changes = [reference.change(position) for position in reference.base]
        if not all(math.isfinite(change.length) for change in changes):
            raise _not_finite_error(HEAD)
        _check_effect(run)
        scale = run.best_scale()
        if scale != 1:
            reference = run.reference_logits(scale)
            self._check_steps(run)
        # Rounding hides what a weak adapter changes in logits: it is measured at the larger scale and divided by that.
        enlarged = max(scale, 1.0)
        if enlarged > 1:
            changes = [reference.change(position) for position in reference.base]
        logit_agreement = _check_logits(run, reference, scale)
        return Verification(
            num_modules=run.adapter.num_modules,
            rank=run.adapter.rank,
            scalable=run.adapter.tensors.is_sum,
            largest_change=max(change.largest for change in changes) / enlarged,
            mean_change=statistics.fmean(change.mean for change in changes) / enlarged,
            agreement=logit_agreement,
            num_tokens=len(run.ids),
            seconds=time.monotonic() - began,
        )

    def _allowed_error(self, check: StepCheck) -> float:
        fraction = min(_AMPLIFICATION[check.kind] * self._tolerance, _MAX_TOLERANCE)
        return fraction * check.change + _ROUNDING[check.kind] * check.size

    def _check_steps(self, run: CanaryRun) -> None:
        for check in run.checks:
            if not math.isfinite(check.size):
                raise _not_finite_error(run.describe(check))
            allowed = self._allowed_error(check)
            if not check.error <= allowed:
                raise AdapterError(
                    f"{run.describe(check)}: the served result differs by {check.error:.3g} from the one computed from "
                    f"the adapter's files; allowed is {allowed:.3g}, since the adapter changes it by {check.change:.3g}"
                )


def _not_finite_error(first: str) -> AdapterError:
    return AdapterError(f"with the adapter, values are not finite, first in {first}")


def _check_effect(run: CanaryRun) -> None:
    """Raise AdapterError if the adapter, at scale 1, changes no result by more than rounding. Logits cannot decide
    this: where activations are rounded to 8 bits, a change in the last bit of one activation moves the logits as far as
    a weak adapter does.
    """
    strongest = max(run.checks, key=_effect)
    if _effect(strongest) <= _LEAST_EFFECT:
        raise AdapterError(
            "the adapter changes nothing: its largest relative change is "
            f"{_relative_change(strongest):.1e} ({run.describe(strongest)}), "
            f"where rounding alone is {_rounding(strongest):.1e}; an effect is more than {_LEAST_EFFECT:g} times that"
        )


def _rounding(check: StepCheck) -> float:
    """The relative rounding error of a result."""
    return max(check.rounding, _LAST_BIT)


def _effect(check: StepCheck) -> float:
    """The adapter's change of a result, as a multiple of the rounding error."""
    return _relative_change(check) / _rounding(check)


def _relative_change(check: StepCheck) -> float:
    """The adapter's change of a result, relative to the result; 1 where the adapter reduces it to 0."""
    size = max(check.size, check.change)
    return check.change / size if size else 0.0


def _check_logits(run: CanaryRun, reference: ReferenceLogits, scale: float) -> float:
    """Compare the served logits with the reference. Returns `Verification.agreement`."""
    base, *adapted = run.served_logits(scale)
    for position in base:
        found = distance(base, run.base_alone, position)
        if not found.length <= _BASE_TOLERANCE * found.size:
            raise AdapterError(
                f"in one batch with the adapter the base's logits differ from the base alone by {found.length:.3g}; "
                f"allowed is {_BASE_TOLERANCE * found.size:.3g}"
            )
    noise = max(_noise(run, reference, position) for position in reference.base)
    total_error = total_change = 0.0
    for logits in adapted:
        for position in logits:
            error = distance(logits, reference.adapted, position).length
            change = reference.change(position).length
            allowed = _LOGIT_TOLERANCE * change + _NOISE_TOLERANCE * noise
            if not error <= allowed:
                raise AdapterError(
                    f"at scale {scale:.3g} the served logits of token {position} differ by {error:.3g} from the "
                    f"reference; allowed is {allowed:.3g}, since the adapter changes them by {change:.3g}"
                )
            total_error, total_change = math.hypot(total_error, error), math.hypot(total_change, change)
    return agreement(total_error, total_change)


def agreement(error: float, change: float) -> float:
    """`Verification.agreement`: 1 - error / change, at least 0."""
    return max(0.0, 1 - error / change) if change else 0.0


def _noise(run: CanaryRun, reference: ReferenceLogits, position: int) -> float:
    """The rounding error of the logits: how far the served base is from its reference, or more if the adapter amplifies
    rounding.
    """
    base = distance(run.base_alone, reference.base, position)
    return max(base.length, reference.amplified_rounding(position), _LEAST_NOISE * base.size)
