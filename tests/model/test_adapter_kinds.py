"""Adapters with DoRA, biases, an embedding, a head, token rows, norms and tables, each against PEFT's stored logits;
and each fault of `adapter_mutations` is far beyond the tolerance.

`pytest tests/model/test_adapter_kinds.py -rP` prints the difference that each fault causes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.ops import AdapterTensors, Ops
from intaglio.ops.reference import ReferenceOps
from tests.golden import cases
from tests.golden.models import Parts, golden_adapters, tiny_parts, untied_parts
from tests.helpers.forward import Prompt, run_prompts
from tests.helpers.kernels import ENGINE_BACKENDS
from tests.helpers.kernels import backend as make_backend
from tests.model.adapter_mutations import ADAPTER_MUTATIONS, FUSED_MUTATIONS, AdapterMutation

MARGIN = 10  # a fault must be this many times the tolerance away

CASES = [(base, adapter) for base, adapters in cases.WHOLE.items() for adapter in adapters]


@pytest.fixture(scope="module")
def bases() -> dict[str, Parts]:
    return {base: untied_parts() if base == "untied" else tiny_parts(base) for base in cases.WHOLE}


def read(base: cases.Base, adapter: str, parts: Parts) -> AdapterTensors:
    return read_peft_adapter(cases.adapter_folder(base, adapter), parts.config, AdapterLimits()).tensors


def distance(
    base: cases.Base,
    adapter: str,
    parts: Parts,
    tensors: AdapterTensors,
    chunk: int | None = None,
    ops: Callable[[], Ops] = ReferenceOps,
) -> tuple[float, float]:
    """(largest difference from PEFT's logits, what is allowed)."""
    golden, row = cases.load(f"whole_{base}"), cases.WHOLE[base].index(adapter)
    backend = ops()
    prompt = Prompt(golden["ids"][row].tolist(), tensors)
    (logits,) = run_prompts(parts.build(ops=backend), [prompt], ops=backend, wanted=cases.MIXED_ROWS, chunk=chunk)
    expected = golden["logits"][row]
    return float(np.abs(logits - expected).max()), cases.tiny_tolerance(expected)


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("backend", ENGINE_BACKENDS)
@pytest.mark.parametrize(("base", "adapter"), CASES)
def test_an_adapter_gives_the_logits_of_peft(
    bases: dict[str, Parts], base: cases.Base, adapter: str, backend: str, chunk: int | None
) -> None:
    tensors = read(base, adapter, bases[base])
    far, allowed = distance(base, adapter, bases[base], tensors, chunk, lambda: make_backend(backend))
    assert far <= allowed


@pytest.mark.parametrize("backend", ENGINE_BACKENDS)
@pytest.mark.parametrize("base", list(cases.WHOLE))
def test_adapters_of_every_kind_share_a_batch_with_the_base(
    bases: dict[str, Parts], base: cases.Base, backend: str
) -> None:
    golden, parts, backend = cases.load(f"whole_{base}"), bases[base], make_backend(backend)
    adapters = [read(base, adapter, parts) for adapter in cases.WHOLE[base]]
    prompts = [Prompt(ids.tolist(), tensors) for ids, tensors in zip(golden["ids"], adapters, strict=True)]
    plain, model = Prompt(golden["ids"][0].tolist()), parts.build(ops=backend)
    together = run_prompts(model, [plain, *prompts, plain], ops=backend, wanted=cases.MIXED_ROWS, chunk=11)
    (alone,) = run_prompts(parts.build(), [plain], wanted=cases.MIXED_ROWS)
    for logits, expected in zip(together, [alone, *golden["logits"], alone], strict=True):
        assert np.abs(logits - expected).max() <= cases.tiny_tolerance(expected)


def test_the_stored_logits_were_made_with_these_tiny_models(bases: dict[str, Parts]) -> None:
    for base, parts in bases.items():
        assert cases.load(f"whole_{base}")["weights_sha256"] == cases.checksum(parts.checkpoint.tensors)


@pytest.mark.parametrize("mutation", ADAPTER_MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_stored_logits_reveal_each_fault(bases: dict[str, Parts], mutation: AdapterMutation) -> None:
    parts = bases[mutation.base]
    tensors = mutation.change(read(mutation.base, mutation.adapter, parts), parts)
    far, allowed = distance(mutation.base, mutation.adapter, parts, tensors, ops=mutation.ops)
    sys.stdout.write(f"{mutation.name}: max abs {far:.3g}, tolerance {allowed:.1g}\n")
    assert far > MARGIN * allowed, f"{mutation.name} moves the logits by only {far}"


@pytest.mark.parametrize("mutation", FUSED_MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_mixed_batch_reveals_exchanged_projections(bases: dict[str, Parts], mutation: AdapterMutation) -> None:
    parts, golden = bases["gemma"], cases.load("mixed_gemma")
    row = cases.MIXED["gemma"].index(mutation.adapter)
    tensors = golden_adapters("gemma", parts.config)[mutation.adapter]
    assert tensors is not None
    prompt = Prompt(golden["ids"][row].tolist(), mutation.change(tensors, parts))
    (logits,) = run_prompts(parts.build(), [prompt], wanted=cases.MIXED_ROWS)
    expected = golden["logits"][row]
    far = float(np.abs(logits - expected).max())
    assert far > MARGIN * cases.tiny_tolerance(expected), f"{mutation.name} moves the logits by only {far}"
