"""Ways to begin a training: those that leave the base as it is are served, and those that change it once they are
converted, as the refusal tells people to. The judge is the model as it was trained, on whatever base it had by then.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.engine.verification.verifier import Verifier
from intaglio.errors import AdapterError
from intaglio.lora.packing import AdapterDtype, count_wider, pack_tensors
from intaglio.lora.peft.base_tables import checkpoint_tables
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.loader import load_gemma
from intaglio.ops import AdapterTensors
from intaglio.ops.cpu import CpuOps
from intaglio.ops.reference import ReferenceOps
from tests.golden import cases
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.forward import Prompt, run_prompts
from tests.oracle.transformers_peft import F32, hf_logits, load_hf

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

IDS = np.random.default_rng(3).integers(0, 256, 21, dtype=np.int32)
SETTINGS: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "o_proj", "down_proj"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config("gemma3_text", num_hidden_layers=2)
    return write_hf_folder(tmp_path_factory.mktemp("inits") / "base", config, random_weights(config, 1))


def begun(base: Path, **settings: Any) -> Any:
    """An adapter as PEFT begins it."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    return get_peft_model(load_hf(base), LoraConfig(task_type="CAUSAL_LM", **(SETTINGS | settings)))


def trained(model: Any, distance: float = 0.1) -> Any:
    """The adapter some way from where it began."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * distance)
    return model.eval()


def with_eva(base: Path) -> Any:
    """EVA gives each module a rank of its own."""
    import torch
    from peft import EvaConfig, initialize_lora_eva_weights

    model = begun(base, init_lora_weights="eva", eva_config=EvaConfig(rho=2.0))
    texts = torch.randint(0, 256, (8, 2, 16))
    initialize_lora_eva_weights(model, [{"input_ids": text, "attention_mask": text > -1} for text in texts])
    assert model.peft_config["default"].rank_pattern
    return model


def our_logits(base: Path, folder: Path) -> F32:
    model = load_gemma(base, ReferenceOps())
    adapter = read_peft_adapter(folder, model.config, AdapterLimits(), base_tables=checkpoint_tables(base))
    (logits,) = run_prompts(model, [Prompt(IDS.tolist(), adapter.tensors)])
    return logits


def agrees(ours: F32, expected: F32) -> bool:
    return float(np.abs(ours - expected).max()) <= 5 * cases.tiny_tolerance(expected)


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal", "mica", "eva"])
def test_an_init_that_leaves_the_base_alone_is_served(tmp_path: Path, base: Path, init: Any) -> None:
    model = trained(with_eva(base) if init == "eva" else begun(base, init_lora_weights=init))
    model.save_pretrained(tmp_path)
    expected = hf_logits(model, IDS)
    assert agrees(our_logits(base, tmp_path), expected)
    assert not agrees(hf_logits(load_hf(base), IDS), expected)


@pytest.mark.parametrize(
    ("init", "settings"),
    [("pissa", {}), ("pissa_niter_4", {"use_rslora": True}), ("olora", {"rank_pattern": {"q_proj": 2}})],
)
def test_an_init_that_changes_the_base_is_refused_until_it_is_converted(
    tmp_path: Path, base: Path, init: str, settings: dict[str, Any]
) -> None:
    model = begun(base, init_lora_weights=init, **settings)
    config = model.peft_config["default"]
    config.init_lora_weights = True  # as PEFT's manual has it, for the conversion reads this folder again
    model.save_pretrained(tmp_path / "begun")
    config.init_lora_weights = init
    expected = hf_logits(trained(model), IDS)
    model.save_pretrained(tmp_path / "as it is")
    with pytest.raises(AdapterError, match=f"'{init}'; .*path_initial_model_for_weight_conversion"):
        our_logits(base, tmp_path / "as it is")
    model.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "begun"))
    assert agrees(our_logits(base, tmp_path / "converted"), expected)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize(("init", "settings"), [("pissa", {}), ("pissa", {"use_rslora": True}), ("olora", {})])
def test_a_converted_adapter_is_verified_beside_quantized_weights_in_the_bits_that_its_modules_need(
    tmp_path: Path, base: Path, init: str, settings: dict[str, Any], dtype: AdapterDtype
) -> None:
    """Halves that cancel to a thousandth, as after a short training: float16 for all of them is refused."""
    model = begun(base, init_lora_weights=init, **settings)
    config = model.peft_config["default"]
    config.init_lora_weights = True
    model.save_pretrained(tmp_path / "begun")
    config.init_lora_weights = init
    trained(model, 1e-3).save_pretrained(
        tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "begun")
    )
    ops = CpuOps(threads=1)
    served = load_gemma(base, ops, "w8")
    adapter = read_peft_adapter(tmp_path / "converted", served.config, AdapterLimits())
    packed = pack_tensors(adapter.tensors, dtype)
    assert count_wider(packed, dtype) == len(packed.pairs)
    verifier = Verifier(served, ops, 16, dtype)
    assert verifier.verify(adapter, served.prepare_adapter(packed)).agreement > 0.5
    if dtype == "int8":
        return
    rounded = {
        key: replace(pair, a=pair.a.astype(np.float16), b=pair.b.T.astype(np.float16).T)
        for key, pair in adapter.tensors.pairs.items()
    }
    with pytest.raises(AdapterError, match="differs by"):
        verifier.verify(adapter, served.prepare_adapter(AdapterTensors(rounded)))
