"""Several adapters in one request, with weights: the sum that PEFT computes with all of them active."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.lora.peft.base_tables import checkpoint_tables
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.gemma import Gemma
from intaglio.model.loader import load_gemma
from intaglio.ops import AdapterTensors
from intaglio.ops.reference import ReferenceOps
from tests.golden import cases
from tests.helpers.checkpoints import FAMILIES, Family, random_weights, tiny_config, write_hf_folder
from tests.helpers.forward import Prompt, run_prompts
from tests.oracle.transformers_peft import F32, hf_logits, load_hf, save_random_adapter

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

SETTINGS: dict[str, dict[str, Any]] = {
    "attention": {"r": 3, "lora_alpha": 4, "target_modules": ["q_proj", "k_proj", "o_proj"]},
    "everything": {
        "r": 2,
        "lora_alpha": 5,
        "use_rslora": True,
        "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj", "embed_tokens", "lm_head"],
        "alpha_pattern": {"lm_head": 1},
    },
    "biased": {"r": 1, "lora_alpha": 2, "target_modules": ["v_proj", "gate_proj", "lm_head"], "lora_bias": True},
}
WEIGHTS = {"attention": 0.7, "everything": -0.3, "biased": 1.6}


class Made:
    """One base and the adapters, as PEFT saved them."""

    def __init__(self, folder: Path, family: Family) -> None:
        config = tiny_config(family, num_hidden_layers=6)
        self.base, self.folder = write_hf_folder(folder / "base", config, random_weights(config, 5)), folder
        for seed, (name, settings) in enumerate(SETTINGS.items()):
            save_random_adapter(load_hf(self.base), folder / name, settings, seed)
        self.ids = np.random.default_rng(3).integers(0, config["vocab_size"], 21, dtype=np.int32)
        self.model: Gemma = load_gemma(self.base, ReferenceOps())

    def peft(self) -> Any:
        """PEFT's model with all of them loaded."""
        from peft import PeftModel

        names = list(SETTINGS)
        model = PeftModel.from_pretrained(load_hf(self.base), self.folder / names[0], adapter_name=names[0])
        for name in names[1:]:
            model.load_adapter(self.folder / name, adapter_name=name)
        return model.eval()

    def read(self, name: str) -> AdapterTensors:
        tables = checkpoint_tables(self.base)
        return read_peft_adapter(self.folder / name, self.model.config, AdapterLimits(), base_tables=tables).tensors

    def logits(self, mix: dict[str, float]) -> F32:
        adapters = [(self.read(name), weight) for name, weight in mix.items()]
        (logits,) = run_prompts(self.model, [Prompt(self.ids.tolist(), adapters)], chunk=8)
        return logits


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("mixes"), request.param)


def with_scales(model: Any, mix: dict[str, float]) -> Any:
    """The model with these adapters active, each as many times as strong as it was trained."""
    from peft.tuners.lora import LoraLayer

    model.base_model.set_adapter(list(mix))
    for module in model.modules():
        for name in mix.keys() & module.scaling.keys() if isinstance(module, LoraLayer) else ():
            module.scaling[name] *= mix[name]
    return model


def agrees(ours: F32, expected: F32) -> bool:
    return float(np.abs(ours - expected).max()) <= 5 * cases.tiny_tolerance(expected)


@pytest.mark.parametrize("names", [["everything"], ["attention", "everything"], ["biased", "everything", "attention"]])
def test_a_mix_is_what_peft_computes_with_its_adapters_active(made: Made, names: list[str]) -> None:
    mix = {name: WEIGHTS[name] for name in names}
    expected = hf_logits(with_scales(made.peft(), mix), made.ids)
    assert agrees(made.logits(mix), expected)
    # The order is without meaning, and so is an adapter with weight 0; another weight is not.
    assert agrees(made.logits(dict(reversed(mix.items()))), expected)
    assert not agrees(made.logits({name: weight**2 for name, weight in mix.items()}), expected)
    assert not agrees(made.logits(dict.fromkeys(mix, 1.0)), expected)


def test_a_mix_is_the_weighted_adapter_that_peft_makes_of_its_parts(made: Made) -> None:
    mix = {"attention": 0.7, "everything": 1.3}
    model = made.peft()
    model.add_weighted_adapter(list(mix), list(mix.values()), "both", combination_type="cat")
    model.set_adapter("both")
    expected = hf_logits(model, made.ids)
    assert agrees(made.logits(mix), expected)
    assert not agrees(made.logits({"attention": 0.7}), expected)
