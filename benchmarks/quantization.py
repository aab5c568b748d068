"""The table of docs/quantization.md: `python -m benchmarks.quantization TEXT CALIBRATION_TEXT [TOKENS]`.

No unquantized Gemma is available without accepting a licence, so the reference is made from the bundled 270M: its
weights are decoded and moved at random within half a step of their own rounding, so that no format can hold the file's
own numbers. Every variant rounds the matrices of the blocks; the embedding is w8 in all of them. Rows named "served"
compute with the kernels of a format, the others with the rounded weights in float32.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.golden.models import MemoryCheckpoint

from benchmarks.gguf_rounding import q4_0, q4_k
from intaglio.evaluation.calibration import ActivationOps, mean_squares
from intaglio.evaluation.evaluate import TokenizedText, Windowing, evaluate
from intaglio.evaluation.subject import RunningWindow, Subject
from intaglio.model.bundled import bundled_model_path
from intaglio.model.config import ModelConfig
from intaglio.model.gemma import Gemma
from intaglio.model.loader import read_config
from intaglio.model.quantize import keeps_numbers, quantize, round_to_w4, round_to_w5, round_to_w8, search_rounding
from intaglio.model.weights import Checkpoint, open_checkpoint
from intaglio.model.weights.names import EMBEDDING
from intaglio.ops import GROUP, QuantizedMatrix
from intaglio.ops.cpu import CpuOps
from intaglio.ops.reference.weight import dequantized
from intaglio.settings import load_settings
from intaglio.text import load_tokenizer

F32 = NDArray[np.float32]
Weights = dict[str, F32]
Rounding = Callable[[F32, F32 | None], F32]

BOS = 2


class ReplayedSubject(Subject):
    """Keeps the logits of the first run over a text, and returns them in every later run."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject.label, subject.model, subject._ops)
        self._subject = subject
        self._logits: list[F32] = []

    def start_window(self, max_tokens: int) -> RunningWindow:
        return _Replayed(self._logits, None if self._logits else self._subject.start_window(max_tokens))


class _Replayed(RunningWindow):
    """recorded: the window that is run the first time; None if its logits were kept."""

    def __init__(self, logits: list[F32], recorded: RunningWindow | None) -> None:
        self._all, self._recorded, self._next = logits, recorded, 0

    def restart(self) -> None:
        if self._recorded is not None:
            self._recorded.restart()

    def extend(self, ids: Sequence[int], num_logit_rows: int) -> F32:
        if self._recorded is not None:
            self._all.append(self._recorded.extend(ids, num_logit_rows))
        self._next += 1
        return self._all[self._next - 1]


def variants() -> dict[str, Rounding]:
    """Name -> (weights, importance of the inputs) -> rounded weights."""

    def of(rounding: Callable[[F32], QuantizedMatrix]) -> Rounding:
        return lambda values, importance: dequantized(rounding(values))

    return {
        "w8": of(round_to_w8),
        "w5, nearest": of(round_to_w5),
        "w5, search": of(lambda values: search_rounding(values, "w5")),
        "w5, calibrated": lambda values, importance: dequantized(search_rounding(values, "w5", importance)),
        "Q4_0": lambda values, importance: q4_0(values),
        "Q4_K": lambda values, importance: q4_k(values),
        "w4, nearest": of(round_to_w4),
        "w4, search": of(lambda values: search_rounding(values, "w4")),
        "w4, calibrated": lambda values, importance: dequantized(search_rounding(values, "w4", importance)),
    }


def reference_weights(checkpoint: Checkpoint) -> Weights:
    rng = np.random.default_rng(0)
    found: Weights = {}
    for name in checkpoint.names():
        values = checkpoint.tensor(name)
        if values.ndim == 2:
            steps = _steps(checkpoint, name, values)
            values += rng.uniform(-0.5, 0.5, values.shape).astype(np.float32) * steps
        found[name] = values
    return found


def _steps(checkpoint: Checkpoint, name: str, values: F32) -> F32:
    """[out, in]: the distance of neighbouring values in the file."""
    raw = checkpoint.raw(name)
    for fmt in ("w8", "w5", "w4"):
        if keeps_numbers(raw.dtype, fmt):
            return np.repeat(np.abs(quantize(raw, fmt).scales.astype(np.float32)), GROUP, axis=1)
    largest = np.abs(values.reshape(len(values), -1, GROUP)).max(axis=2)  # Q6_K: 64 steps
    return np.repeat(largest / 32, GROUP, axis=1)


def main() -> None:
    text, calibration = (Path(name).read_text() for name in sys.argv[1:3])
    num_tokens = int(sys.argv[3]) if len(sys.argv) > 3 else 2000
    path = bundled_model_path(load_settings().cache_path)
    tokenizer = load_tokenizer(path, cache_dir=load_settings().cache_path / "tokenizers", eos_ids=[1])
    ids = tokenizer.encode(text)[:num_tokens]
    ops = CpuOps()
    with open_checkpoint(path) as checkpoint:
        config = read_config(checkpoint)
        plain = {name: checkpoint.tensor(name) for name in checkpoint.names()}
        weights = reference_weights(checkpoint)
    reference = ReplayedSubject(Subject("reference", _model(config, weights, ops, "f32"), ops))
    importance = _importance(reference.model, ops, tokenizer.encode(calibration)[:4000])
    _report("the file", plain, None, reference, ids, ops, config)
    del plain
    for name, rounding in variants().items():
        began = time.process_time()
        rounded = _rounded(weights, rounding, importance)
        seconds = time.process_time() - began
        _report(name, rounded, _error(weights, rounded), reference, ids, ops, config, seconds=seconds)
    for fmt in ("w8", "w5", "w4"):
        _report(f"{fmt}, served", weights, None, reference, ids, ops, config, fmt)


def _rounded(weights: Mapping[str, F32], rounding: Rounding, importance: Mapping[str, F32]) -> Weights:
    found: Weights = {}
    for name, values in weights.items():
        if name == EMBEDDING:
            found[name] = dequantized(round_to_w8(values))
        else:
            found[name] = rounding(values, importance[name]) if values.ndim == 2 else values
    return found


def _error(weights: Mapping[str, F32], rounded: Mapping[str, F32]) -> float:
    """Relative root mean square error of the matrices of the blocks."""
    names = [name for name in weights if weights[name].ndim == 2 and name != EMBEDDING]
    error = sum(float(((rounded[name] - weights[name]) ** 2).sum(dtype=np.float64)) for name in names)
    return (error / sum(float((weights[name] ** 2).sum(dtype=np.float64)) for name in names)) ** 0.5


def _model(config: ModelConfig, weights: Mapping[str, F32], ops: CpuOps, fmt: str) -> Gemma:
    return Gemma(config, MemoryCheckpoint(weights, norm_includes_one=True), ops, fmt)


def _importance(model: Gemma, ops: CpuOps, ids: list[int]) -> Weights:
    recording = ActivationOps(ops)
    window = RunningWindow(model.with_ops(recording), recording, None, 512)
    for start in range(0, len(ids), 511):
        window.restart()
        window.extend([BOS, *ids[start : start + 511]], 1)
    return mean_squares(model, recording)


def _report(
    name: str,
    weights: Mapping[str, F32],
    error: float | None,
    reference: Subject,
    ids: list[int],
    ops: CpuOps,
    config: ModelConfig,
    fmt: str = "f32",
    seconds: float = 0.0,
) -> None:
    subject = Subject(name, _model(config, weights, ops, fmt), ops)
    text, windowing = [TokenizedText("text", ids)], Windowing(1024, 512)
    found = evaluate(text, subject, reference, windowing, bos_id=BOS, vocab_size=config.vocab_size).total
    compared, other = found.comparison, found.reference
    assert compared is not None
    assert other is not None
    shown = "" if error is None else f"{error:.2%}"
    print(
        f"| {name} | {shown} | {compared.kl_mean:.2e} | {compared.kl_p99:.2e} | {compared.same_best:.1%} "
        f"| {found.evaluated.perplexity:.3f} | {compared.perplexity_ratio:.4f} |  {seconds:.1f} s",
        flush=True,
    )
    if name == "the file":
        print(f"reference: perplexity {other.perplexity:.3f} ± {other.perplexity * other.loss_error:.2f}", flush=True)


if __name__ == "__main__":
    main()
