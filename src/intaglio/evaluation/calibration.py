"""Weights for the inputs of a matrix: the mean square of their activations, for `intaglio pack --calibrate`.

With e the errors of a row's weights, the mean square error of its product is the sum over pairs of inputs of
e_i e_j E[x_i x_j]; of these the terms with i = j are kept, Σ e_i² E[x_i²]. Source: the importance matrix of llama.cpp.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.base_model import BaseModel
from intaglio.engine.core_process import make_ops
from intaglio.engine.memory.available import AvailableMemory, available_memory
from intaglio.engine.memory.plan import format_mb
from intaglio.errors import EvaluationError, NotEnoughMemoryError
from intaglio.evaluation.memory import PROGRAM_BYTES, cache_bytes, footprint
from intaglio.evaluation.subject import RunningWindow
from intaglio.evaluation.texts import Text
from intaglio.model.gemma import DOWN, GATE_UP, OUT, QKV, Gemma
from intaglio.model.loader import load_gemma
from intaglio.model.packing.pack import Calibration
from intaglio.ops import Array, Ops, Weight
from intaglio.settings import Settings

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

CONTEXT_LENGTH = 512  # tokens of one window, BOS included
_MODULES = (QKV, OUT, GATE_UP, DOWN)


def calibrate(
    base: BaseModel,
    settings: Settings,
    texts: Sequence[Text],
    progress: Callable[[int, int], None],
    available: AvailableMemory | None = None,
) -> Calibration:
    """Run the texts through the model in windows of 512 tokens, its matrices in w8.

    available  None asks the machine
    Raises EvaluationError for a text that is too short, NotEnoughMemoryError, and as `load_gemma` does.
    """
    ids = [token for text in texts for token in base.tokenizer.encode(text.content)]
    if len(ids) < 2:
        raise EvaluationError(f"{texts[0].name} has {len(ids)} token; at least 2 are needed to calibrate")
    ops = make_ops(settings.kernels, settings.threads)
    length = min(CONTEXT_LENGTH, base.config.context_length)
    _check_memory(base, settings, ops, length, available or available_memory())
    model = load_gemma(base.path, ops, "w8")
    recording = ActivationOps(ops)
    running = RunningWindow(model.with_ops(recording), recording, None, length)
    step = length - 1
    for start in range(0, len(ids), step):
        running.restart()
        running.extend([base.tokenizer.bos_id, *ids[start : start + step]], 1)
        progress(min(start + step, len(ids)), len(ids))
    digest = hashlib.sha256(repr((CONTEXT_LENGTH, ids)).encode()).hexdigest()
    return Calibration(mean_squares(model, recording), digest)


def _check_memory(base: BaseModel, settings: Settings, ops: Ops, length: int, available: AvailableMemory) -> None:
    weights = footprint(base.path, settings, "w8", ops.layout, uses_packed=False)
    caches = cache_bytes(base.config, length, "f32")
    needed = weights.weights + weights.loading + caches + PROGRAM_BYTES
    if needed > available.size_bytes:
        raise NotEnoughMemoryError(
            f"not enough memory to calibrate: {format_mb(needed)} needed, {format_mb(available.size_bytes)} available "
            f"({available.bound}): weights in w8 {format_mb(weights.weights)}, loading them "
            f"{format_mb(weights.loading)}; pack without --calibrate, or on a larger machine"
        )


class ActivationOps:
    """An `Ops` that delegates to another one and adds up the squares of the inputs of each matrix of the blocks."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops
        self._squares: dict[int, F64] = {}
        self._rows: dict[int, int] = {}
        self._weights: dict[int, Weight] = {}  # kept alive, so that an id is not used again

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def mean_square(self, weight: Weight) -> F32:
        """[inputs], over all rows so far."""
        return (self._squares[id(weight)] / self._rows[id(weight)]).astype(np.float32)

    def self_attention(self, x: Array, qkv: Sequence[Weight], *rest: Any) -> Array:
        self._record(x, qkv)
        return self._ops.self_attention(x, qkv, *rest)

    def gated_linear(self, x: Array, gate: Weight, up: Weight, *rest: Any) -> Array:
        self._record(x, [gate, up])
        return self._ops.gated_linear(x, gate, up, *rest)

    def add_projection(self, x: Array, y: Array, weight: Weight, *rest: Any) -> tuple[Array, Array]:
        self._record(y, [weight])
        return self._ops.add_projection(x, y, weight, *rest)

    def _record(self, x: Array, weights: Sequence[Weight]) -> None:
        values = np.asarray(x, np.float32)
        squares = np.einsum("ij,ij->j", values, values, dtype=np.float64)
        for weight in weights:
            self._weights[id(weight)] = weight
            self._squares[id(weight)] = self._squares.get(id(weight), 0.0) + squares
            self._rows[id(weight)] = self._rows.get(id(weight), 0) + len(values)


def mean_squares(model: Gemma, recording: ActivationOps) -> dict[str, F32]:
    """What was recorded, by tensor name. `adapter_weights` lists embedding, four projections for each layer, head."""
    found: dict[str, F32] = {}
    for index, weights in enumerate(model.adapter_weights()[1:-1]):
        layer, projection = divmod(index, len(_MODULES))
        for module, weight in zip(_MODULES[projection], weights, strict=True):
            found[f"model.layers.{layer}.{module}.weight"] = recording.mean_square(weight)
    return found
