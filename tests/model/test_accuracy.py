"""Whole models on the C++ kernels: golden logits in float32, and how far quantized formats are from them on real text.

`pytest tests/model/test_accuracy.py -m slow -rP` prints the figures of docs/accuracy.md, "Quantized kernels".
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest

from intaglio.model.bundled import bundled_model_path
from intaglio.model.loader import load_gemma
from intaglio.model.quantize import WeightFormat
from intaglio.ops import Array, LoraPlan, Ops, QuantizedMatrix
from intaglio.ops.cpu import CpuOps, CpuWeight, instruction_sets
from intaglio.settings import Settings
from tests.golden import cases
from tests.golden.models import golden_adapters, tiny_parts
from tests.helpers.checkpoints import FAMILIES, Family
from tests.helpers.distributions import distance
from tests.helpers.forward import F32, Prompt, run_prompts
from tests.helpers.numpy_quantized_ops import RoundingOps
from tests.ops.backends import BACKENDS, KERNELS
from tests.ops.quantized import assert_is_product, bfloat16_activations, bfloat16_weights, rounded_activations, rows_of

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


class CheckedOps(CpuOps):
    """The kernels, with each product compared with exact arithmetic, for up to 4,096 outputs of a quantized matrix."""

    def __init__(self, name: str) -> None:
        super().__init__(2, name)
        self.num_checked = 0
        self._matrices: dict[int, QuantizedMatrix] = {}

    def quantized_weight(self, matrix: QuantizedMatrix) -> CpuWeight:
        weight = super().quantized_weight(matrix)
        self._matrices[id(weight)] = matrix
        return weight

    def linears(
        self, x: Array, weights: Sequence[CpuWeight], plan: LoraPlan | None = None, projection: int = 0
    ) -> tuple[Array, ...]:
        outputs = super().linears(x, weights, plan, projection)
        for out, weight in zip(outputs, weights, strict=True):
            if len(x) == 0:
                continue  # the head, if no logits are wanted
            matrix = self._matrices[id(weight)]
            some = slice(None, None, -(-matrix.shape[0] // 4096))
            assert_is_product(np.ascontiguousarray(out[:, some]), x, rows_of(matrix, some), kernels=self)
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


def text_logits(ops: Ops, fmt: WeightFormat) -> F32:
    model = load_gemma(bundled_model_path(Settings().cache_path), ops, fmt)
    ids = cases.load("gemma3_270m")["ids"].tolist()
    (logits,) = run_prompts(model, [Prompt(ids)], ops=ops, chunk=175, block_size=16)
    return logits


@pytest.fixture(scope="module")
def float32_logits() -> F32:
    """Logits of all 700 tokens in float32, with the dequantized weights of the file."""
    return text_logits(RoundingOps(), "f32")


# The cost of an arithmetic in mean KL over the 700 rows, in nats. It does not depend on a kernel or a machine: it was
# measured with copies of the arithmetic in NumPy, in several runs with the last bit of activations changed at random
# (docs/accuracy.md, "What rounding costs"). Roundings of weights and of activations are independent, so that
# their squares add up, and KL is half a mean square.
Arithmetic = Literal["float32", "int8", "bfloat16 tiles"]
WEIGHTS_KL: dict[WeightFormat, float] = {"f32": 0.0, "bf16": 6.5e-5, "auto": 1.15e-4, "w8": 2.9e-4, "w4": 0.137}
ACTIVATIONS_KL: dict[Arithmetic, float] = {"float32": 0.0, "int8": 2.07e-3, "bfloat16 tiles": 1.27e-4}

# From run to run such a mean over 700 rows has a standard deviation of 3 %; this allows eight of them. In float32 only
# the order of sums differs: 1.0e-11 between one BLAS and the kernels, and ten times as much is allowed for others.
MOST_KL = 1.25
MOST_KL_OF_FLOAT32 = 1e-10

# Rounding changes the difference of the two best logits of a row by a random number. Its standard deviation was 2.6
# times the root of the mean KL in every arithmetic that was measured. It changes the best token in near-ties, whose
# number depends on the text.
DEVIATION_BY_ROOT_OF_KL = 2.6
MOST_DEVIATIONS = 8  # by which a best token may lead and still lose to another; the tail is heavy (kurtosis 6)


def arithmetic_of(kernels: str, fmt: WeightFormat) -> Arithmetic:
    """The arithmetic of a backend's products with matrices of a format."""
    if fmt in ("f32", "bf16"):
        return "float32"
    return "bfloat16 tiles" if kernels == "amx" else "int8"


def check_distance(what: str, expected: F32, logits: F32, fmt: WeightFormat, arithmetic: Arithmetic) -> None:
    """Check the mean KL, and which and how many best tokens differ, for one arithmetic and format of weights."""
    found = distance(expected, logits)
    most_kl = MOST_KL * (WEIGHTS_KL[fmt] + ACTIVATIONS_KL[arithmetic]) + MOST_KL_OF_FLOAT32
    expected_changed = found.expected_best_changed(DEVIATION_BY_ROOT_OF_KL * found.mean_kl**0.5)
    sys.stdout.write(
        f"{what}: mean KL {found.mean_kl:.2e} of {most_kl:.1e}, same best token {found.same_best:.1%}: "
        f"{found.num_best_changed} differ, {expected_changed:.0f} expected, by up to {found.lead.max():.2f} nats\n"
    )
    assert found.mean_kl <= most_kl
    assert found.lead.max() <= MOST_DEVIATIONS * DEVIATION_BY_ROOT_OF_KL * most_kl**0.5
    # Five standard deviations above the mean: rare events that are independent have a variance like their mean.
    assert found.num_best_changed <= expected_changed + 5 * expected_changed**0.5


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "fmt"),
    # Only the best set is tested with every format: `plain` takes 25 times as long as `avx2`; `auto` has w4, w5 and w8.
    [(name, fmt) for name in KERNELS for fmt in WEIGHTS_KL if fmt == "auto" or name == instruction_sets()[0]],
)
def test_the_real_270m_is_as_far_from_float32_as_its_arithmetic_implies(
    float32_logits: F32, name: str, fmt: WeightFormat
) -> None:
    logits = text_logits(CpuOps(2, name), fmt)
    check_distance(f"{name}, {fmt}", float32_logits, logits, fmt, arithmetic_of(name, fmt))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif("reference" not in BACKENDS, reason="NumPy only: does not depend on the kernels")
@pytest.mark.parametrize(
    ("arithmetic", "fmt"), [("float32", "auto"), ("float32", "w8"), ("int8", "auto"), ("bfloat16 tiles", "auto")]
)
def test_a_copy_of_the_arithmetic_in_numpy_is_as_far_from_float32(
    float32_logits: F32, arithmetic: Arithmetic, fmt: WeightFormat
) -> None:
    """It is as far as the kernels are, so their distance is caused by the arithmetic."""
    copies: dict[Arithmetic, Ops] = {
        "float32": RoundingOps(),
        "int8": RoundingOps(rounded_activations),
        "bfloat16 tiles": RoundingOps(bfloat16_activations, bfloat16_weights),
    }
    logits = text_logits(copies[arithmetic], fmt)
    check_distance(f"NumPy, {arithmetic}, {fmt}", float32_logits, logits, fmt, arithmetic)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fmt", ["auto", "w4"])
@pytest.mark.parametrize("name", KERNELS)
def test_every_quantized_product_of_the_real_270m_is_exact_over_its_rounded_values(
    name: str, fmt: WeightFormat
) -> None:
    """With real scales and activations with outliers: the distance is caused by rounding, not by a kernel."""
    ops = CheckedOps(name)
    model = load_gemma(bundled_model_path(Settings().cache_path), ops, fmt)
    ids = cases.load("gemma3_270m")["ids"].tolist()[:40]
    run_prompts(model, [Prompt(ids)], ops=ops, chunk=33, wanted=[39])
    assert ops.num_checked == 2 * (18 * 7) + 1  # two forwards of 18 layers, and the head once
