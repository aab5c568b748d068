"""Every key of an adapter config is used, harmless or refused by name."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import AdapterError
from intaglio.lora.peft.config import MODEL_TYPES, PeftConfig, is_before, read_peft_config
from tests.helpers.adapters import ALL_TARGETS, peft_config

LIMIT = 1 << 20


def read(tmp_path: Path, content: object) -> PeftConfig:
    path = tmp_path / "adapter_config.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return read_peft_config(path, LIMIT)


def test_what_peft_writes_is_read(tmp_path: Path) -> None:
    settings = peft_config(
        r=7,
        lora_alpha=13.5,
        use_rslora=True,
        rank_pattern={"z": 3, "a": 2},
        alpha_pattern={"v_proj": -1, "q_proj": 0},
        layers_to_transform=[0, 2],
        exclude_modules=["o_proj"],
        model_type="gemma",
        layers_pattern="layers",
        lora_bias=True,
        modules_to_save=["embed_tokens", "norm"],
        trainable_token_indices={"lm_head": [7, 3]},
        ensure_weight_tying=True,
    )
    assert read(tmp_path, settings) == PeftConfig(
        r=7,
        lora_alpha=13.5,
        use_rslora=True,
        rank_pattern={"z": 3, "a": 2},
        alpha_pattern={"v_proj": -1.0, "q_proj": 0.0},
        target_modules=ALL_TARGETS,
        exclude_modules=("o_proj",),
        layers_to_transform=frozenset({0, 2}),
        model_type="gemma",
        base_model="google/gemma-tiny",
        layers_pattern=("layers",),
        lora_bias=True,
        modules_to_save=("embed_tokens", "norm"),
        token_indices={"lm_head": (7, 3)},
        ensure_weight_tying=True,
        peft_version="0.21.2",
    )
    assert list(read(tmp_path, settings).rank_pattern) == ["z", "a"]  # the order of the file decides


def test_a_list_of_tokens_is_for_the_embedding_and_the_other_switches_are_read(tmp_path: Path) -> None:
    config = read(tmp_path, peft_config(trainable_token_indices=[5, 2], use_dora=True, layers_pattern=["h", "layers"]))
    assert config.token_indices == {"embed_tokens": (5, 2)}
    assert (config.use_dora, config.lora_bias, config.layers_pattern) == (True, False, ("h", "layers"))


@pytest.mark.parametrize("name", ["norm", "model.norm", "q_norm", "0.self_attn.k_norm", "layers.17.input_layernorm"])
@pytest.mark.parametrize("prefix", ["", "model.language_model."])
def test_norms_and_tables_can_be_saved_whole(tmp_path: Path, name: str, prefix: str) -> None:
    for module in (name, "embed_tokens", "lm_head", f"{prefix}embed_tokens"):
        assert read(tmp_path, peft_config(modules_to_save=[module])).modules_to_save == (module,)


@pytest.mark.parametrize("model_type", [None, *MODEL_TYPES])
def test_the_gemma_family_is_accepted_as_model_type(tmp_path: Path, model_type: str | None) -> None:
    assert read(tmp_path, peft_config(model_type=model_type)).model_type == model_type


def test_null_targets_are_those_that_peft_takes_for_a_gemma(tmp_path: Path) -> None:
    assert read(tmp_path, peft_config(target_modules=None)).target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    "harmless",
    [
        {"bias": "all"},
        {"lora_dropout": 0.5, "inference_mode": False, "auto_mapping": {"base_model_class": "Gemma"}},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"init_lora_weights": "Gaussian"},
        {"init_lora_weights": "mica", "corda_config": {"verbose": True}, "lora_ga_config": {"scale": "unit"}},
        {"init_lora_weights": True, "loftq_config": {"loftq_bits": 4}},
        {"bias": "lora_only", "layers_pattern": [""], "trainable_token_indices": [], "peft_version": None},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": None},
        {"layers_to_transform": 1, "layers_pattern": "layers"},
        {"layers_to_transform": []},
        {"layers_to_transform": [-1]},
        {"fan_in_fan_out": True},
        {"modules_to_save": [], "target_parameters": [], "use_dora": None},
        {"task_type": None},
        {"ensure_weight_tying": True},
        {"some_new_variant": None, "another": False, "a_third": {}, "a_fourth": [], "a_fifth": 0, "a_sixth": ""},
    ],
)
def test_settings_without_effect_are_accepted(tmp_path: Path, harmless: dict[str, Any]) -> None:
    assert read(tmp_path, peft_config(**harmless)).r == 4


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("peft_type", "LOHA", "peft_type is 'LOHA'; only LORA is served"),
        ("peft_type", None, "peft_type is missing"),
        ("task_type", "SEQ_CLS", "task_type is 'SEQ_CLS'; .*CAUSAL_LM"),
        ("model_type", "mistral", "model_type is 'mistral'; .*gemma, gemma2, gemma3, gemma3_text"),
        ("r", None, "r is missing"),
        ("r", 0, "r is 0; a rank, a whole number from 1"),
        ("r", True, "r is True"),
        ("r", 4.0, "r is 4.0"),
        ("lora_alpha", None, "lora_alpha is missing; a number is needed"),
        ("lora_alpha", "16", "lora_alpha is '16'"),
        ("lora_alpha", 10**400, "lora_alpha is .* a finite number"),
        ("use_rslora", "true", "use_rslora is 'true'; true or false"),
        ("rank_pattern", ["q_proj"], "rank_pattern is"),
        ("rank_pattern", {"q_proj": 0}, "rank_pattern 'q_proj' is 0"),
        ("rank_pattern", {str(n): 1 for n in range(1025)}, "at most 1024 module patterns"),
        ("alpha_pattern", {"q_proj": None}, "alpha_pattern 'q_proj' is missing"),
        ("target_modules", 7, "target_modules is 7"),
        ("exclude_modules", {"a": 1}, "exclude_modules is"),
        ("layers_to_transform", "all", "layers_to_transform is 'all'"),
        ("layers_to_transform", [1.0], "layers_to_transform is"),
        ("base_model_name_or_path", 5, "base_model_name_or_path is 5"),
        ("bias", "some", "bias is 'some'"),
        ("init_lora_weights", "pissa", "init_lora_weights is 'pissa'; .*path_initial_model_for_weight_conversion"),
        ("init_lora_weights", "pissa_niter_16", "init_lora_weights"),
        ("init_lora_weights", "olora", "init_lora_weights"),
        ("init_lora_weights", "corda", "init_lora_weights"),
        ("init_lora_weights", "lora_ga", "init_lora_weights"),
        ("init_lora_weights", "loftq", "init_lora_weights"),
        ("init_lora_weights", 1, "init_lora_weights is 1"),
        ("use_dora", 1, "use_dora is 1; true or false"),
        ("lora_bias", "yes", "lora_bias is 'yes'; true or false"),
        ("ensure_weight_tying", [], r"ensure_weight_tying is \[\]; true or false"),
        ("peft_version", 0.18, "peft_version is 0.18; a string"),
        ("layers_pattern", 7, "layers_pattern is 7"),
        ("layers_pattern", ["a"] * 17, "layers_pattern .* limit is 16"),
        ("modules_to_save", ["norm", "mlp"], "modules_to_save names 'mlp'; .* Adapt the module with target_modules"),
        ("modules_to_save", ["classifier"], "modules_to_save names 'classifier'"),
        ("modules_to_save", ["layers.0"], "modules_to_save names 'layers.0'"),
        ("modules_to_save", "norm", "modules_to_save is 'norm'; a list"),
        ("modules_to_save", ["norm"] * 5000, "modules_to_save is .* limit is 4096"),
        ("trainable_token_indices", "5", "trainable_token_indices is '5'"),
        ("trainable_token_indices", [5, -1], "trainable_token_indices is .* from 0"),
        ("trainable_token_indices", [5, 7, 5], "trainable_token_indices is .* a token is named twice"),
        ("trainable_token_indices", {"embed_tokens": 5}, "trainable_token_indices is"),
        ("layer_replication", [[0, 2], [1, 3]], "layer_replication asks for"),
        ("target_parameters", ["mlp.experts"], "target_parameters asks for"),
        ("alora_invocation_tokens", [2, 106], "alora_invocation_tokens asks for activated LoRA"),
        ("use_qalora", True, "use_qalora asks for"),
        ("use_bdlora", {}, "use_bdlora asks for"),
        ("arrow_config", {"top_k": 3}, "arrow_config asks for"),
        ("kasa_config", {}, "kasa_config asks for"),
        ("velora_config", {"rank": 1}, "velora_config asks for"),
        ("monteclora_config", {"num_samples": 8}, "monteclora_config asks for"),
        ("megatron_config", {"a": 1}, "megatron_config asks for"),
        ("use_superlora", True, "key 'use_superlora' is unknown and is set to True"),
        ("use_superlora\x1b[31m", {"a": 1}, r"key 'use_superlora\\x1b\[31m' is unknown"),
    ],
)
def test_a_setting_that_is_not_served_is_refused_by_name(tmp_path: Path, key: str, value: Any, complaint: str) -> None:
    with pytest.raises(AdapterError, match=complaint) as refusal:
        read(tmp_path, peft_config(**{key: value}))
    assert "adapter_config.json" in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_settings_that_peft_does_not_combine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"lora_bias is True.*DoRA"):
        read(tmp_path, peft_config(lora_bias=True, use_dora=True))


@pytest.mark.parametrize(
    ("version", "is_older"),
    [
        (None, True),
        ("", True),
        ("new", True),
        ("0.9.0", True),
        ("0.17.2.dev0@4e181e", True),
        ("0.18.0", False),
        ("0.21.2", False),
        ("1.0", False),
        ("9" * 1000, True),
    ],
)
def test_versions_of_peft_are_compared_by_number(version: str | None, is_older: bool) -> None:
    assert is_before(version, 0, 18) is is_older


def test_layers_and_an_expression_together_are_refused_as_peft_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="layers_to_transform"):
        read(tmp_path, peft_config(target_modules=".*q_proj", layers_to_transform=[0]))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not valid JSON"),
        (b"[]", r"is \[\]; a JSON object is needed"),
        (b"null", "is None; a JSON object is needed"),
        (b'"LORA"', "a JSON object is needed"),
        (b"{", "not valid JSON"),
        (b'{"r": 4, "r": 8}', "key 'r' occurs twice"),
        (b'{"rank_pattern": {"q": 4, "q": 8}}', "key 'q' occurs twice"),
        (b'{"lora_alpha": NaN}', "NaN is not a JSON value"),
        (b'{"lora_alpha": -Infinity}', "-Infinity is not a JSON value"),
        (b'{"lora_alpha": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b" " * (LIMIT + 1), f"more than {LIMIT} bytes"),
    ],
)
def test_a_file_that_is_not_a_config_is_refused_with_the_reason(tmp_path: Path, content: bytes, complaint: str) -> None:
    with pytest.raises(AdapterError, match=complaint):
        read(tmp_path, content)


def test_a_missing_file_and_a_folder_in_its_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"adapter_config.json cannot be read: No such file"):
        read_peft_config(tmp_path / "adapter_config.json", LIMIT)
    (tmp_path / "adapter_config.json").mkdir()
    with pytest.raises(AdapterError, match=r"adapter_config.json is not a regular file"):
        read_peft_config(tmp_path / "adapter_config.json", LIMIT)


def test_a_config_as_large_as_the_limit_is_read_quickly(tmp_path: Path) -> None:
    started = time.process_time()
    with pytest.raises(AdapterError):
        read(tmp_path, b'{"a":[' + b"{}," * 340_000 + b"{}]}")
    assert time.process_time() - started < 5
