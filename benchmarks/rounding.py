"""The cost of the arithmetic of quantized products, without kernels: `python -m benchmarks.rounding [RUNS]`.

Uses copies of each arithmetic in NumPy, on the 700 tokens of docs/accuracy.md. After the first run the last bit of
activations is changed at random before they are rounded, as another BLAS or machine would, so the runs differ like two
machines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from tests.golden import cases
from tests.helpers.distributions import distance
from tests.helpers.forward import Prompt, run_prompts
from tests.helpers.numpy_quantized_ops import RoundingOps
from tests.ops.quantized import bfloat16_activations, bfloat16_weights, rounded_activations

from intaglio.model.bundled import bundled_model_path
from intaglio.model.loader import load_gemma
from intaglio.model.quantize import WeightFormat
from intaglio.ops import GROUP, QuantizedMatrix
from intaglio.ops.reference.weight import dequantized
from intaglio.settings import load_settings

F32 = NDArray[np.float32]
Rounding = Callable[[F32], NDArray[np.floating]]


def in_groups_of_16(x: F32) -> NDArray[np.floating]:
    """127 steps of the largest of each 16 inputs."""
    rows, inputs = x.shape
    halves = x.reshape(rows, -1, GROUP // 2)
    padded = np.zeros((rows, halves.shape[1], GROUP), np.float32)
    padded[:, :, : GROUP // 2] = halves
    rounded = rounded_activations(padded.reshape(rows, -1)).reshape(padded.shape)
    return rounded[:, :, : GROUP // 2].reshape(rows, inputs)


def with_zero_point(x: F32) -> NDArray[np.floating]:
    """255 steps from the least to the greatest of each 32 inputs, or to zero."""
    groups = x.reshape(len(x), -1, GROUP)
    least = groups.min(axis=2, keepdims=True, initial=0)
    most = groups.max(axis=2, keepdims=True, initial=0)
    step = np.where(most > least, (most - least) / np.float32(255), np.float32(1))
    zero = np.rint(-least / step)
    return ((np.clip(np.rint(groups / step) + zero, 0, 255) - zero) * step).reshape(x.shape)


def with_fitted_scale(x: F32) -> NDArray[np.floating]:
    """The whole numbers of int8, with the scale that brings them nearest to x (least squares)."""
    groups, rounded = x.reshape(len(x), -1, GROUP), rounded_activations(x).reshape(len(x), -1, GROUP)
    squares = (rounded**2).sum(axis=2, keepdims=True)
    products = (rounded * groups).sum(axis=2, keepdims=True)
    fit = np.divide(products, squares, out=np.ones_like(squares), where=squares > 0)
    return (rounded * fit).reshape(x.shape)


ARITHMETICS: dict[str, tuple[Rounding, Callable[[QuantizedMatrix], NDArray[np.floating]]]] = {
    "float32 activations": (lambda x: x, dequantized),
    "int8": (rounded_activations, dequantized),
    "bfloat16 tiles": (bfloat16_activations, bfloat16_weights),
    "int8, fitted scale": (with_fitted_scale, dequantized),
    "int8 in groups of 16": (in_groups_of_16, dequantized),
    "int8 with a zero point": (with_zero_point, dequantized),
}


def with_changed_last_bits(x: F32, random: np.random.Generator) -> F32:
    """The next float above or below each number, at random."""
    return np.nextafter(x, np.where(random.random(x.shape) < 0.5, np.float32(np.inf), np.float32(-np.inf)))


def logits(ops: RoundingOps, fmt: WeightFormat) -> F32:
    model = load_gemma(bundled_model_path(load_settings().cache_path), ops, fmt)
    return run_prompts(model, [Prompt(cases.load("gemma3_270m")["ids"].tolist())], ops=ops, chunk=175, block_size=16)[0]


def main(runs: int) -> None:
    exact = logits(RoundingOps(), "f32")
    for name, (rounding, weights) in ARITHMETICS.items():
        for run in range(runs):
            random = np.random.default_rng(run)
            activations = rounding if run == 0 else lambda x, f=rounding, r=random: f(with_changed_last_bits(x, r))
            found = distance(exact, logits(RoundingOps(activations, weights), "auto"))
            figures = f"mean KL {found.mean_kl:.2e}, {found.num_best_changed} of {len(exact)} best tokens differ"
            print(f"{name}, run {run}: {figures}, by up to {found.lead.max():.2f} nats", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
