"""Whole models on the C++ kernels: golden logits in float32, and how far the quantized formats stray on real text.

`pytest tests/model/test_accuracy.py -m slow -rP` prints the figures of docs/accuracy.md, "Quantized kernels".
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio.model.bundled import bundled_model_path
from intaglio.model.loader import load_gemma
from intaglio.model.quantize import WeightFormat
from intaglio.ops import Array, LoraPlan, Ops, QuantizedMatrix
from intaglio.ops.cpu import CpuOps, CpuWeight
from intaglio.ops.reference import ReferenceOps
from intaglio.ops.reference_weight import MatrixWeight, dequantized
from intaglio.settings import Settings
from tests.golden import cases
from tests.golden.models import golden_adapters, tiny_parts
from tests.helpers.checkpoints import FAMILIES, Family
from tests.helpers.forward import F32, Prompt, run_prompts
from tests.ops.bodies import KERNELS
from tests.ops.quantized import assert_is_product, rounded_activations

# ---------------------------------------------------------------------------------------------- tiny models, float32


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_kernels_give_the_logits_of_transformers(family: Family, name: str) -> None:
    golden, ops = cases.load(f"tiny_{family}"), CpuOps(2, name)
    model = tiny_parts(family).build(ops=ops)
    for chunk in (None, 7):
        (logits,) = run_prompts(model, [Prompt(golden["ids"].tolist())], ops=ops, chunk=chunk)
        assert np.abs(logits - golden["logits"]).max() <= cases.tiny_tolerance(golden["logits"])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("family", list(cases.MIXED))
def test_float32_kernels_give_the_mixed_batch_of_peft(family: Family, name: str) -> None:
    golden, ops = cases.load(f"mixed_{family}"), CpuOps(2, name)
    parts = tiny_parts(family)
    adapters = golden_adapters(family, parts.config)
    prompts = [
        Prompt(ids.tolist(), adapters[name]) for ids, name in zip(golden["ids"], cases.MIXED[family], strict=True)
    ]
    logits = run_prompts(parts.build(ops=ops), prompts, ops=ops, chunk=7, wanted=cases.MIXED_ROWS)
    for ours, theirs in zip(logits, golden["logits"], strict=True):
        assert np.abs(ours - theirs).max() <= cases.tiny_tolerance(theirs)


# ------------------------------------------------------------------------------------------------------ the real 270M


class RoundsActivations(ReferenceOps):
    """The reference body, but rows that meet a quantized matrix are rounded to int8 as the kernels do it.

    Written apart from them: what it loses against float32 is what the method costs, and no fault of a kernel.
    """

    def quantized_weight(self, matrix: QuantizedMatrix) -> MatrixWeight:
        return _RoundsItsInput(dequantized(matrix), "f32")


class _RoundsItsInput(MatrixWeight):
    def project(self, x: F32) -> F32:
        return super().project(rounded_activations(x).astype(np.float32))


class ChecksItsProducts(CpuOps):
    """The kernels, each product with a quantized matrix of at most 4,096 outputs held to exact arithmetic."""

    def __init__(self) -> None:
        super().__init__(2)
        self.num_checked = 0
        self._matrices: dict[int, QuantizedMatrix] = {}

    def quantized_weight(self, matrix: QuantizedMatrix) -> CpuWeight:
        weight = super().quantized_weight(matrix)
        self._matrices[id(weight)] = matrix
        return weight

    def linears(
        self, x: Array, weights: Sequence[CpuWeight], plan: LoraPlan | None = None, call: int = 0
    ) -> tuple[Array, ...]:
        outputs = super().linears(x, weights, plan, call)
        for out, weight in zip(outputs, weights, strict=True):
            if len(x) == 0:
                continue  # the head, when no row's logits are wanted
            matrix = self._matrices[id(weight)]
            step = -(-matrix.shape[0] // 4096)
            minima = None if matrix.minima is None else matrix.minima[::step]
            some = QuantizedMatrix(matrix.fmt, matrix.values[::step], matrix.scales[::step], minima)
            assert_is_product(np.ascontiguousarray(out[:, ::step]), x, some, kernels=self)
            self.num_checked += 1
        return outputs

    def self_attention(self, x: Array, qkv: Sequence[CpuWeight], *rest: Any) -> Array:
        self.linears(x, qkv)
        return super().self_attention(x, qkv, *rest)

    def gated_linear(self, x: Array, gate: CpuWeight, up: CpuWeight, *rest: Any) -> Array:
        self.linears(x, (gate, up))
        return super().gated_linear(x, gate, up, *rest)

    def add_projection(self, x: Array, y: Array, weight: CpuWeight, *rest: Any) -> tuple[Array, Array]:
        self.linears(y, (weight,))
        return super().add_projection(x, y, weight, *rest)


@dataclass(frozen=True)
class Distance:
    """Between two models' next-token distributions over the rows of one text."""

    mean_kl: float
    same_best: float


def log_softmax(logits: F32) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def distance(expected: F32, logits: F32) -> Distance:
    """Row by row in pieces: 700 rows of 262,144 are 0.7 GB already."""
    divergences: list[float] = []
    same = 0
    for start in range(0, len(expected), 50):
        log_p, log_q = log_softmax(expected[start : start + 50]), log_softmax(logits[start : start + 50])
        divergences += (np.exp(log_p) * (log_p - log_q)).sum(axis=-1).tolist()
        same += int((log_p.argmax(axis=-1) == log_q.argmax(axis=-1)).sum())
    return Distance(float(np.mean(divergences)), same / len(expected))


def text_logits(ops: Ops, fmt: WeightFormat) -> F32:
    model = load_gemma(bundled_model_path(Settings().cache_path), ops, fmt)
    ids = cases.load("gemma3_270m")["ids"].tolist()
    (logits,) = run_prompts(model, [Prompt(ids)], ops=ops, chunk=175, block_size=16)
    return logits


@pytest.fixture(scope="module")
def float32_logits() -> F32:
    """Every row of the 700 tokens: the reference body on the values that the file's numbers stand for."""
    return text_logits(ReferenceOps(), "f32")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("body", "fmt", "most_kl", "least_same"),
    [
        # The kernels. 5e-3 and 98 % are the goal for 8 bit; 4 bit is not held to it. `w8` was measured at 98.1 %: one
        # row of 700 above the goal, which another instruction set's rounding may turn.
        ("kernels", "auto", 5e-3, 0.98),
        ("kernels", "w8", 5e-3, 0.975),
        ("kernels", "w4", 0.25, 0.75),
        ("kernels", "bf16", 5e-4, 0.99),
        ("kernels", "f32", 1e-9, 1.0),
        # The same weights, activations in float32: what the weights' rounding costs alone.
        ("weights only", "auto", 5e-4, 0.985),
        ("weights only", "w8", 1e-3, 0.985),
        ("weights only", "w4", 0.25, 0.75),
        # Weights and activations rounded by NumPy: as far away as the kernels are, so their distance is the method's.
        ("rounded by NumPy", "auto", 5e-3, 0.98),
    ],
)
def test_the_real_270m_stays_near_float32(
    float32_logits: F32, body: str, fmt: WeightFormat, most_kl: float, least_same: float
) -> None:
    bodies = {"kernels": CpuOps, "weights only": ReferenceOps, "rounded by NumPy": RoundsActivations}
    measured = distance(float32_logits, text_logits(bodies[body](), fmt))
    sys.stdout.write(f"{body}, {fmt}: mean KL {measured.mean_kl:.2g}, same best token {measured.same_best:.2%}\n")
    assert measured.mean_kl <= most_kl
    assert measured.same_best >= least_same


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fmt", ["auto", "w4"])
def test_every_quantized_product_of_the_real_270m_is_exact_over_its_rounded_values(fmt: WeightFormat) -> None:
    """The real scales, the real activations with their outliers: what strays is the rounding, not a kernel."""
    ops = ChecksItsProducts()
    model = load_gemma(bundled_model_path(Settings().cache_path), ops, fmt)
    ids = cases.load("gemma3_270m")["ids"].tolist()[:40]
    run_prompts(model, [Prompt(ids)], ops=ops, chunk=33, wanted=[39])
    assert ops.num_checked == 2 * (18 * 7) + 1  # two forwards of 18 layers, and the head once
