"""PEFT writes adapters, and what we read from them is what PEFT computes with: scaling · B · A of every module."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.peft.reader import CONFIG_FILE, AdapterLimits, read_peft_adapter
from intaglio.lora.peft.tensor_names import parse_tensor_name
from intaglio.model.config import ModelConfig, config_from_hf
from intaglio.ops import ModuleKey
from tests.helpers.checkpoints import FAMILIES, Family, tiny_config

# PEFT and transformers warn of many things that are none of ours.
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

Deltas = dict[ModuleKey, NDArray[np.float32]]

# float32 sums of up to 16 products in another order, and B rounded once more by the scaling.
RELATIVE_TO_LARGEST = 1e-6

MATRIX: dict[str, dict[str, Any]] = {
    "default targets": {},
    "all linear": {"target_modules": "all-linear", "r": 3, "lora_alpha": 7},
    "a list": {"target_modules": ["k_proj", "mlp.up_proj", "down_proj"]},
    "full names": {"target_modules": ["model.layers.0.self_attn.o_proj", "model.layers.2.mlp.gate_proj"]},
    "an expression": {"target_modules": r".*layers\.[02]\..*(?:gate|up|q)_proj"},
    "an expression with a lookahead": {"target_modules": r"^(?!.*(?:layers\.1|mlp)).*(?:q_proj|o_proj).*"},
    "excluded names": {
        "target_modules": "all-linear",
        "exclude_modules": ["mlp.up_proj", "model.layers.1.mlp.down_proj"],
    },
    "excluded by expression": {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*\.1\..*"},
    "some layers": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [0, 2]},
    "one layer": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": 1, "layers_pattern": "layers"},
    "layers of a pattern": {
        "target_modules": ["v_proj"],
        "layers_to_transform": [0, 1],
        "layers_pattern": ["h", "layers"],
    },
    "whole paths beside layers": {"target_modules": ["v_proj", "model.layers.1.mlp.up_proj"], "layers_to_transform": 2},
    "the head": {"target_modules": ["lm_head", "o_proj"]},
    "the embedding": {"target_modules": ["embed_tokens"], "r": 6, "lora_alpha": 5, "use_rslora": True},
    "both by expression": {"target_modules": r"lm_head|model\.embed_tokens|.*\.1\..*up_proj", "exclude_modules": ["h"]},
    "both with patterns": {
        "target_modules": ["model.embed_tokens", "lm_head", "q_proj"],
        "rank_pattern": {"embed_tokens": 3, "^lm_head": 5},
        "alpha_pattern": {"model.embed_.*": 30, "lm_head": 2},
    },
    "both tied": {"target_modules": ["lm_head"], "ensure_weight_tying": True, "alpha_pattern": {"lm_head": 20}},
    "an initialisation that leaves the base alone": {"init_lora_weights": "mica"},
    "rslora": {"r": 16, "lora_alpha": 32, "use_rslora": True},
    "a fraction and a sign": {"lora_alpha": -0.375, "r": 5},
    "patterns": {
        "target_modules": "all-linear",
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\..*": 7, "^model.layers.2.self_attn.v_proj": 1},
        "alpha_pattern": {"down_proj": 1, r"model.layers.[12].self_attn.(?:q|k)_proj": 40, "o_proj": 0.5},
    },
    "patterns that overlap": {
        "target_modules": "all-linear",
        # In alphabetical order: PEFT sorts the keys as it saves, and could not load its own file otherwise.
        "rank_pattern": {"a|.*q_proj": 2, r"layers.0.*": 3, "z|q_proj": 6},
        "alpha_pattern": {"layers.0.*": 3, "q_proj": 9, "_proj": 1000, "layers.0.self_attn.q_proj": 11},
    },
    "rslora and patterns": {
        "target_modules": "all-linear",
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2, "down_proj": 9},
        "alpha_pattern": {"up_proj": 3, "q_proj": 24},
    },
}


def tiny_model(family: Family) -> tuple[Any, ModelConfig]:
    import transformers

    raw = tiny_config(family)
    config = transformers.AutoConfig.for_model(**raw)
    return transformers.AutoModelForCausalLM.from_config(config).eval(), config_from_hf(raw)


def saved_by_peft(model: Any, folder: Path, **settings: Any) -> Any:
    """Wrap the model with a random adapter, save the adapter, give back the wrapped model."""
    import peft
    import torch

    torch.manual_seed(0)
    settings = {"init_lora_weights": False, "task_type": "CAUSAL_LM"} | settings
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**settings))
    if settings["init_lora_weights"] == "mica":  # A is 0 before training
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if ".lora_A." in name:
                    parameter.normal_()
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return wrapped


def peft_deltas(base_model: Any, folder: Path) -> Deltas:
    """Every module's delta after PEFT has loaded the folder itself: saving sorts the keys of the patterns."""
    import peft

    loaded = peft.PeftModel.from_pretrained(base_model, folder).eval()
    return dict(_deltas_of(loaded))


def _deltas_of(model: Any) -> Iterator[tuple[ModuleKey, NDArray[np.float32]]]:
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight") and "vision_tower" not in name:
            is_table = bool(module.lora_embedding_A)
            key = parse_tensor_name(f"{name}.lora_{'embedding_A' if is_table else 'A.weight'}", "judge").key
            delta = module.get_delta_weight("default").detach().numpy()
            yield key, delta.T if is_table else delta  # of a table PEFT turns it round


def disagreement(adapter: LoraAdapter, judge: Deltas) -> float:
    """The largest difference, relative to the judge's largest value; infinite when the modules are not the same."""
    if adapter.pairs.keys() != judge.keys():
        return float("inf")
    ours = {key: pair.b @ pair.a for key, pair in adapter.pairs.items()}
    return max(float(np.abs(ours[key] - judge[key]).max() / max(1.0, np.abs(judge[key]).max())) for key in judge)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", MATRIX.values(), ids=MATRIX.keys())
def test_every_delta_is_the_one_that_peft_computes(tmp_path: Path, family: Family, settings: dict[str, Any]) -> None:
    model, config = tiny_model(family)
    saved_by_peft(model, tmp_path, **settings)
    judge = peft_deltas(tiny_model(family)[0], tmp_path)
    assert judge and all(np.abs(delta).max() > 1e-3 for delta in judge.values())
    assert disagreement(read_peft_adapter(tmp_path, config, AdapterLimits()), judge) <= RELATIVE_TO_LARGEST


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_adapter_saved_in_half_precision_is_read_as_peft_reads_it(tmp_path: Path, dtype: str) -> None:
    import torch

    model, config = tiny_model("gemma")
    saved_by_peft(model, tmp_path).to(getattr(torch, dtype)).save_pretrained(tmp_path)
    judge = peft_deltas(tiny_model("gemma")[0], tmp_path)  # loaded into a float32 model
    assert disagreement(read_peft_adapter(tmp_path, config, AdapterLimits()), judge) <= RELATIVE_TO_LARGEST


def test_an_adapter_trained_inside_the_multimodal_gemma_3_is_read(tmp_path: Path) -> None:
    import transformers

    text = tiny_config("gemma3_text")
    vision = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    wrapped = saved_by_peft(
        model,
        tmp_path,
        target_modules=r".*language_model.*\.(q|v)_proj",
        alpha_pattern={"^model.language_model.layers.0.self_attn.q_proj": 3},
    )
    judge = dict(_deltas_of(wrapped))
    adapter = read_peft_adapter(tmp_path, config_from_hf(text), AdapterLimits())
    assert disagreement(adapter, judge) <= RELATIVE_TO_LARGEST
    # The same training without the expression reaches the vision tower too, which a text does not need.
    model = transformers.Gemma3ForConditionalGeneration(config)
    both = saved_by_peft(model, tmp_path / "all", target_modules=["q_proj"])
    adapter = read_peft_adapter(tmp_path / "all", config_from_hf(text), AdapterLimits())
    assert disagreement(adapter, dict(_deltas_of(both))) <= RELATIVE_TO_LARGEST
    assert adapter.notes == ("LoRA on 1 modules of the vision tower is not used: this server runs the text model",)


# ------------------------------------------------------------------------------- the judge notices each silent killer


def without_rslora(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {"use_rslora": False}


def without_alpha_pattern(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {"alpha_pattern": {}}


def with_patterns_in_another_order(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {"alpha_pattern": dict(reversed(settings["alpha_pattern"].items()))}


@pytest.mark.parametrize(
    ("case", "mutate"),
    [
        ("rslora and patterns", without_rslora),
        ("rslora and patterns", without_alpha_pattern),
        ("patterns that overlap", with_patterns_in_another_order),
    ],
)
def test_the_comparison_notices_an_ignored_setting(
    tmp_path: Path, case: str, mutate: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    model, config = tiny_model("gemma")
    saved_by_peft(model, tmp_path, **MATRIX[case])
    judge = peft_deltas(tiny_model("gemma")[0], tmp_path)
    path = tmp_path / CONFIG_FILE
    path.write_text(json.dumps(mutate(json.loads(path.read_text()))))
    assert disagreement(read_peft_adapter(tmp_path, config, AdapterLimits()), judge) > 0.1


def test_the_comparison_notices_the_config_rank_in_place_of_a_modules_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from intaglio.lora.peft.module_rules import ModuleRules

    model, config = tiny_model("gemma")
    settings = MATRIX["patterns"]
    saved_by_peft(model, tmp_path, **settings)
    judge = peft_deltas(tiny_model("gemma")[0], tmp_path)
    true_scaling = ModuleRules.scaling
    monkeypatch.setattr(ModuleRules, "scaling", lambda self, path, rank: true_scaling(self, path, settings["r"]))
    assert disagreement(read_peft_adapter(tmp_path, config, AdapterLimits()), judge) > 0.1
    monkeypatch.undo()
    path = tmp_path / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rank_pattern": {}}))
    with pytest.raises(AdapterError, match=r"rank \d.*adapter_config.json .*rank 4"):
        read_peft_adapter(tmp_path, config, AdapterLimits())


# ------------------------------------------------------------------------------ what PEFT can write and we do not serve


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"modules_to_save": ["mlp"]}, "modules_to_save names 'mlp'; whole modules are served for norms, embed_tokens"),
        (
            {"use_bdlora": {"target_modules_bd_a": ["q_proj", "v_proj"], "nblocks": 2}},
            "use_bdlora asks for block-diagonal LoRA",
        ),
        ({"kasa_config": {}}, "kasa_config asks for KaSA"),
        ({"velora_config": {}}, "velora_config asks for VeLoRA"),
        ({"monteclora_config": {}}, "monteclora_config asks for MonteCLoRA"),
        ({"use_qalora": True}, "use_qalora asks for QA-LoRA"),
        ({"target_modules": [], "target_parameters": ["mlp.up_proj.weight"]}, "target_parameters asks for"),
        ({"init_lora_weights": True}, "would change nothing; it was not trained"),
        ({"init_lora_weights": "gaussian"}, "would change nothing; it was not trained"),
        ({"init_lora_weights": True, "use_dora": True}, "would change nothing; it was not trained"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication asks for"),
        ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens asks for"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights is 'lora_ga'"),
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
    ],
)
def test_a_variant_that_peft_saves_is_refused_by_name(tmp_path: Path, settings: dict[str, Any], complaint: str) -> None:
    model, config = tiny_model("gemma")
    saved_by_peft(model, tmp_path, **settings)
    with pytest.raises(AdapterError, match=complaint):
        read_peft_adapter(tmp_path, config, AdapterLimits())


@pytest.mark.parametrize(
    "settings", [{"modules_to_save": ["embed_tokens", "lm_head"]}, {"trainable_token_indices": [5, 2]}]
)
def test_the_same_table_twice_is_refused_with_the_way_to_save_it_once(tmp_path: Path, settings: dict[str, Any]) -> None:
    model, config = tiny_model("gemma")
    wrapped = saved_by_peft(model, tmp_path / "once", **settings)
    assert read_peft_adapter(tmp_path / "once", config, AdapterLimits()).tensors.tables.keys() == set(
        settings.get("modules_to_save", ())
    )
    wrapped.save_pretrained(tmp_path / "twice", save_embedding_layers=True)
    with pytest.raises(AdapterError, match=r"[Ss]ave the adapter again with save_embedding_layers=False"):
        read_peft_adapter(tmp_path / "twice", config, AdapterLimits())


def test_another_kind_of_adapter_is_refused_by_name(tmp_path: Path) -> None:
    import peft

    model, config = tiny_model("gemma")
    peft.get_peft_model(model, peft.LoHaConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="peft_type is 'LOHA'"):
        read_peft_adapter(tmp_path, config, AdapterLimits())
