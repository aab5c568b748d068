"""On the real 270M: the least that counts as an adapter, with every backend and in every format of weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import intaglio.demo_adapters
from intaglio.engine.verification.verifier import Verifier
from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.packing import AdapterDtype, pack_tensors
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.bundled import bundled_model_path
from intaglio.model.gemma import Gemma
from intaglio.model.loader import load_gemma
from intaglio.ops import AdapterTensors, LoraPair, Ops
from intaglio.request import Verification
from intaglio.settings import Settings
from tests.helpers.kernels import BACKENDS, backend

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEMOS = Path(intaglio.demo_adapters.__path__[0])
# NumPy holds every format as one of two: float32, or bfloat16 that it widens.
FORMATS = {name: ("auto", "bf16") if name == "reference" else ("auto", "w8", "w4", "bf16", "f32") for name in BACKENDS}


@pytest.fixture(
    scope="module", params=[(name, fmt) for name, formats in FORMATS.items() for fmt in formats], ids="-".join
)
def served(request: pytest.FixtureRequest) -> Iterator[tuple[Gemma, Ops, AdapterDtype]]:
    name, fmt = request.param
    ops = backend(name)
    yield load_gemma(bundled_model_path(Settings().cache_path), ops, fmt), ops, "float32" if fmt == "f32" else "float16"


def verify(served: tuple[Gemma, Ops, AdapterDtype], tensors: AdapterTensors) -> Verification:
    model, ops, dtype = served
    weights = model.prepare_adapter(pack_tensors(tensors, dtype))
    return Verifier(model, ops, 16, dtype).verify(LoraAdapter.of(tensors), weights)


def weakened(tensors: AdapterTensors, factor: float) -> AdapterTensors:
    pairs = {key: replace(pair, scale=pair.scale * np.float32(factor)) for key, pair in tensors.pairs.items()}
    return replace(tensors, pairs=pairs)


def random_adapter(model: Gemma, size: float) -> AdapterTensors:
    random = np.random.default_rng(0)

    def pair(out: int, inputs: int) -> LoraPair:
        a = random.normal(0, inputs**-0.5, (8, inputs)).astype(np.float32)
        return LoraPair(a, random.normal(0, size, (out, 8)).astype(np.float32))

    shapes = model.config.linear_layer_shapes().items()
    return AdapterTensors(
        {(layer, name): pair(*shape) for layer in range(model.config.num_layers) for name, shape in shapes}
    )


def test_a_hundredth_of_a_trained_adapter_is_verified_and_a_billionth_refused(
    served: tuple[Gemma, Ops, AdapterDtype],
) -> None:
    for name in ("intaglio-chat", "intaglio-json", "intaglio-sql", "intaglio-triage"):
        tensors = read_peft_adapter(DEMOS / name, served[0].config, AdapterLimits()).tensors
        verification = verify(served, weakened(tensors, 0.01))
        assert 0 < verification.mean_change < 1, "about a hundredth of the 12 to 26 that the whole changes"
        with pytest.raises(AdapterError, match="changes nothing"):
            verify(served, weakened(tensors, 1e-9))


def test_a_nearly_zero_b_and_a_nearly_zero_alpha_are_refused(served: tuple[Gemma, Ops, AdapterDtype]) -> None:
    for tensors in (random_adapter(served[0], 1e-10), weakened(random_adapter(served[0], 0.02), 1e-30)):
        with pytest.raises(AdapterError, match="changes nothing"):
            verify(served, tensors)
