"""Files as the trainers that people use write them: their configs, key by key, beside their tensors' names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.peft.reader import WEIGHTS_FILE, AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig
from tests.helpers.adapters import ALL_TARGETS, write_peft_adapter
from tests.lora.edited_files import set_keys

# What Unsloth's FastModel makes of finetune_vision_layers=False and of its default, with both.
_UNSLOTH_PARTS = (
    "(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    "(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|out_proj|fc1|fc2).*?)"
)
_UNSLOTH_LAYERS = (
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)"
    r"\.(?:(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)))"
)
UNSLOTH_TEXT = f"(?:.*?(?:language|text).*?{_UNSLOTH_PARTS}{_UNSLOTH_LAYERS}"
UNSLOTH_BOTH = f"(?:.*?(?:vision|image|visual|patch|language|text).*?{_UNSLOTH_PARTS}{_UNSLOTH_LAYERS}"

TRAINERS: Mapping[str, dict[str, Any]] = {
    "TRL": {"base_model_name_or_path": "google/gemma-3-270m", "lora_dropout": 0.05, "peft_version": "0.18.0"},
    "Unsloth": {
        "auto_mapping": {
            "base_model_class": "Gemma3ForCausalLM",
            "parent_library": "transformers.models.gemma3.modeling_gemma3",
            "unsloth_fixed": True,
        },
        "base_model_name_or_path": "unsloth/gemma-3-270m-it-unsloth-bnb-4bit",
        "target_modules": UNSLOTH_TEXT,
    },
    "Axolotl": {
        "fan_in_fan_out": None,
        "loftq_config": {},
        "modules_to_save": None,
        "target_modules": ["down_proj", "o_proj", "k_proj", "q_proj", "gate_proj", "up_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    },
    "LLaMA-Factory 0.9.5": {  # all keys that it wrote with PEFT 0.18.1 and lora_target: all, but for rank and alpha
        "alora_invocation_tokens": None, "alpha_pattern": {}, "arrow_config": None, "auto_mapping": None,
        "base_model_name_or_path": "gemma", "bias": "none", "corda_config": None, "ensure_weight_tying": False,
        "eva_config": None, "exclude_modules": None, "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": True, "layer_replication": None, "layers_pattern": None, "layers_to_transform": None,
        "loftq_config": {}, "lora_bias": False, "lora_dropout": 0.0, "megatron_config": None,
        "megatron_core": "megatron.core", "modules_to_save": None, "peft_type": "LORA", "peft_version": "0.18.1",
        "qalora_group_size": 16, "rank_pattern": {}, "revision": None,
        "target_modules": ["up_proj", "k_proj", "down_proj", "q_proj", "v_proj", "o_proj", "gate_proj"],
        "target_parameters": None, "task_type": "CAUSAL_LM", "trainable_token_indices": None, "use_dora": False,
        "use_qalora": False, "use_rslora": False,
    },
    "LLaMA-Factory with a vision tower frozen": {
        "base_model_name_or_path": "/models/gemma-2b-it",
        "eva_config": None,
        "exclude_modules": None,
        "target_modules": "^(?!.*patch_embed).*(?:gate_proj|k_proj|q_proj|up_proj|down_proj|o_proj|v_proj).*",
    },
    "ms-swift": {"target_modules": r"^(model(?=\.).*\.(k_proj|up_proj|q_proj|v_proj|down_proj|o_proj|gate_proj))$"},
    "an old PEFT": {"peft_version": None, "layers_pattern": None, "layers_to_transform": None},
    "by hand": {"target_modules": r"(?i)MODEL\..*_(?-i:proj)", "fan_in_fan_out": True, "model_type": "gemma"},
}  # fmt: skip


def read(folder: Path, base: ModelConfig) -> LoraAdapter:
    return read_peft_adapter(folder, base, AdapterLimits())


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_same_numbers_are_the_same_adapter_whichever_trainer_saved_them(
    tmp_path: Path, base: ModelConfig, trainer: str
) -> None:
    plain = read(write_peft_adapter(tmp_path / "plain", base), base)
    found = read(write_peft_adapter(tmp_path / "theirs", base, **TRAINERS[trainer]), base)
    assert (found.digest, found.notes) == (plain.digest, ())


# ------------------------------------------------- trained inside the multimodal Gemma 3, its vision tower included

VISION = "base_model.model.model.vision_tower.vision_model.encoder.layers"


def write_multimodal(folder: Path, base: ModelConfig, **config: Any) -> Path:
    """The text's tensors under the multimodal model's names, beside those of two layers of its vision tower."""
    write_peft_adapter(folder, base, **config)
    text = {
        name.replace("model.model.layers", "model.model.language_model.layers"): values
        for name, values in load_file(folder / WEIGHTS_FILE).items()
    }
    vision = {
        f"{VISION}.{layer}.{module}.lora_{half}.weight": np.ones(shape, np.float32)
        for layer in range(2)
        for module in ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1")
        for half, shape in (("A", (4, 24)), ("B", (24, 4)))
    }
    save_file(text | vision, folder / WEIGHTS_FILE)
    return folder


@pytest.mark.parametrize("targets", [UNSLOTH_BOTH, [*ALL_TARGETS, "out_proj", "fc1"], "all-linear"])
def test_text_is_served_without_the_vision_tower_and_the_verification_says_so(
    tmp_path: Path, base: ModelConfig, targets: Any
) -> None:
    plain = read(write_peft_adapter(tmp_path / "plain", base), base)
    folder = write_multimodal(tmp_path / "both", base)
    set_keys(folder, target_modules=targets)
    found = read(folder, base)
    assert found.digest == plain.digest
    (note,) = found.notes
    assert note == "LoRA on 6 modules of the vision tower is not used: this server runs the text model"


def test_a_vision_tower_that_the_config_does_not_adapt_is_from_another_training(
    tmp_path: Path, base: ModelConfig
) -> None:
    folder = write_multimodal(tmp_path, base)
    for targets in (UNSLOTH_TEXT, list(ALL_TARGETS)):
        set_keys(folder, target_modules=targets)
        with pytest.raises(
            AdapterError, match=rf"tensor '{VISION}.*does not adapt .*vision_tower.* different trainings"
        ):
            read(folder, base)
    set_keys(folder, target_modules="all-linear", exclude_modules=["fc1"])
    with pytest.raises(AdapterError, match=r"does not adapt .*mlp\.fc1"):
        read(folder, base)


def test_a_vision_tower_alone_or_with_half_a_pair_is_refused(tmp_path: Path, base: ModelConfig) -> None:
    folder = write_multimodal(tmp_path, base)
    tensors = load_file(folder / WEIGHTS_FILE)
    save_file({name: values for name, values in tensors.items() if "vision" in name}, folder / WEIGHTS_FILE)
    with pytest.raises(
        AdapterError, match="holds no tensors but those of the vision tower, so it would change nothing"
    ):
        read(folder, base)
    save_file({name: values for name, values in tensors.items() if "fc1.lora_B" not in name}, folder / WEIGHTS_FILE)
    with pytest.raises(AdapterError, match=r"fc1.lora_A.weight' has no lora_B beside it"):
        read(folder, base)
