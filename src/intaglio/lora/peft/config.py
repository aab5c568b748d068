"""`adapter_config.json` as PEFT writes it: which keys change the arithmetic, which are harmless, and which are refused.

The tables below have every key that is known. An unknown key is most likely that of a newer LoRA variant: it is ignored
while it is off (null, false, empty, 0) and refused by name when it is on. docs/peft.md lists the keys.
Source: LoraConfig of peft 0.21.2, and the keys that other versions and trainers leave behind.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intaglio.errors import AdapterError
from intaglio.files.json_object import read_json_object
from intaglio.lora.peft import config_values as values
from intaglio.lora.peft.config_values import CONFIG_FILE, fault
from intaglio.lora.peft.tensor_names import can_be_saved

__all__ = [
    "CONFIG_FILE",
    "HARMLESS_KEYS",
    "MODEL_TYPES",
    "REFUSED_KEYS",
    "USED_KEYS",
    "PeftConfig",
    "peft_config",
    "read_peft_config",
]

MODEL_TYPES = ("gemma", "gemma2", "gemma3", "gemma3_text")

# PEFT's own targets for the Gemma family when the key is null.
_DEFAULT_TARGETS = ("q_proj", "v_proj")

# Keys that `read_peft_config` reads.
USED_KEYS = frozenset(
    [
        "peft_type",
        "task_type",
        "model_type",
        "r",
        "lora_alpha",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "bias",
        "lora_bias",
        "use_dora",
        "modules_to_save",
        "trainable_token_indices",
        "ensure_weight_tying",
        "init_lora_weights",
        "base_model_name_or_path",
        "peft_version",
    ]
)

# Training, provenance, or settings of something that another key turns on.
HARMLESS_KEYS = frozenset(
    [
        "auto_mapping",
        "revision",
        "inference_mode",
        "lora_dropout",
        "fan_in_fan_out",  # of layers that have transposed weights; PEFT sets it to false for those of a Gemma
        "megatron_core",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "qalora_group_size",
        "runtime_config",
    ]
)

REFUSED_KEYS = {
    "layer_replication": ("another stack of layers than the base's", "Train without layer_replication"),
    "target_parameters": ("LoRA on raw parameters", "Name the linear layers in target_modules instead"),
    "alora_invocation_tokens": ("activated LoRA, on for part of the prompt only", "Train a plain LoRA"),
    "use_qalora": ("QA-LoRA", "Train with use_qalora=False"),
    "use_bdlora": ("block-diagonal LoRA", "Train without use_bdlora"),
    "arrow_config": ("Arrow routing over several adapters", "Upload the adapters one by one and name them together"),
    "kasa_config": ("KaSA, which changes the base weights", "Train without kasa_config"),
    "velora_config": ("VeLoRA", "Train without velora_config"),
    "monteclora_config": ("MonteCLoRA", "Train without monteclora_config"),
    "megatron_config": ("Megatron's parallel layers", "Save the adapter on the plain model"),
}

# Initialisations that leave the base as it is. PiSSA, OLoRA, CorDA, LoRA-GA and LoftQ change it, and save no copy.
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica")


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """The part of an adapter config that its arithmetic needs.

    rank_pattern, alpha_pattern  expression -> value, in file order: the first that matches a module applies
    target_modules               a list of names, or one expression; "all-linear" is all seven linear layers
    layers_to_transform          None is every layer
    layers_pattern               names allowed in front of the layer's number; empty allows any
    lora_bias, use_dora          a bias added to B's output; DoRA's magnitude per output
    modules_to_save              ends of paths of modules that the adapter replaces
    token_indices                end of a table's path -> the tokens whose rows it replaces
    ensure_weight_tying          every change of the embedding applies to a tied head too
    num_last_layers              of MLX: the last layers that are adapted; None is every layer
    model_type, base_model, peft_version  provenance from the file; None if absent
    """

    r: int
    lora_alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    target_modules: tuple[str, ...] | str
    exclude_modules: tuple[str, ...] | str
    layers_to_transform: frozenset[int] | None
    model_type: str | None
    base_model: str | None
    layers_pattern: tuple[str, ...] = ()
    lora_bias: bool = False
    use_dora: bool = False
    modules_to_save: tuple[str, ...] = ()
    token_indices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ensure_weight_tying: bool = False
    peft_version: str | None = None
    num_last_layers: int | None = None


def read_peft_config(path: Path, max_bytes: int) -> PeftConfig:
    """Read and check the file. Raises AdapterError naming the key, its value and what to do."""
    return peft_config(read_json_object(path, max_bytes, path.name, AdapterError))


def peft_config(raw: Mapping[str, Any]) -> PeftConfig:
    """Check the object in the file. Raises AdapterError naming the key, its value and what to do."""
    _check_kind(raw)
    _check_keys(raw)
    targets = raw.get("target_modules")
    config = PeftConfig(
        r=values.rank(raw.get("r"), "r"),
        lora_alpha=values.alpha(raw.get("lora_alpha"), "lora_alpha"),
        use_rslora=values.flag(raw, "use_rslora"),
        rank_pattern={
            key: values.rank(value, f"rank_pattern {key[:80]!r}") for key, value in values.pattern(raw, "rank_pattern")
        },
        alpha_pattern={
            key: values.alpha(value, f"alpha_pattern {key[:80]!r}")
            for key, value in values.pattern(raw, "alpha_pattern")
        },
        target_modules=_DEFAULT_TARGETS if targets is None else values.names(targets, "target_modules"),
        exclude_modules=values.names(raw.get("exclude_modules") or [], "exclude_modules"),
        layers_to_transform=values.layers(raw.get("layers_to_transform")),
        model_type=raw.get("model_type"),
        base_model=values.text(raw, "base_model_name_or_path"),
        layers_pattern=values.layer_patterns(raw.get("layers_pattern")),
        lora_bias=values.flag(raw, "lora_bias"),
        use_dora=values.flag(raw, "use_dora"),
        modules_to_save=values.saved_modules(raw.get("modules_to_save")),
        token_indices=values.token_indices(raw.get("trainable_token_indices")),
        ensure_weight_tying=values.flag(raw, "ensure_weight_tying"),
        peft_version=values.text(raw, "peft_version"),
    )
    _check_combinations(config)
    return config


def _check_kind(raw: Mapping[str, Any]) -> None:
    """Refuse adapters of other types, tasks, model families and initialisations."""
    if raw.get("peft_type") != "LORA":
        raise fault("peft_type", raw.get("peft_type"), "only LORA is served; train with a LoraConfig")
    if raw.get("task_type") not in (None, "CAUSAL_LM"):
        raise fault("task_type", raw["task_type"], "this server generates text; train with task_type CAUSAL_LM")
    if raw.get("model_type") not in (None, *MODEL_TYPES):
        raise fault("model_type", raw["model_type"], f"it must be one of {', '.join(MODEL_TYPES)}")
    if raw.get("bias") not in (None, "none", "all", "lora_only"):
        raise fault("bias", raw["bias"], "none, all or lora_only is needed")
    init = raw.get("init_lora_weights")
    if not (init is None or isinstance(init, bool) or (isinstance(init, str) and init.lower() in _PLAIN_INITS)):
        raise fault(
            "init_lora_weights",
            init,
            "this initialisation changes the base weights, so the adapter does not fit the base as it is. Convert it: "
            "save_pretrained with path_initial_model_for_weight_conversion",
        )


def _check_keys(raw: Mapping[str, Any]) -> None:
    """Refuse settings that change the arithmetic and are not supported, and unknown ones."""
    for key, value in raw.items():
        if key in USED_KEYS or key in HARMLESS_KEYS:
            continue
        if key in REFUSED_KEYS:
            # An empty object turns a variant on with its defaults; an empty list names nothing.
            if value is not None and value is not False and value != []:
                what, remedy = REFUSED_KEYS[key]
                raise AdapterError(f"{CONFIG_FILE}: {key} asks for {what}, which is not served. {remedy}")
        elif value:
            raise AdapterError(
                f"{CONFIG_FILE}: key {key[:80]!r} is unknown and is set to {reprlib.repr(value)}; "
                "if it does not change what the adapter computes, remove it"
            )


def _check_combinations(config: PeftConfig) -> None:
    """Refuse combinations that PEFT does not support, and saved modules that this server does not support."""
    targets, layers = config.target_modules, config.layers_to_transform
    if layers is not None and isinstance(targets, str) and targets.lower() != "all-linear":
        raise fault(
            "layers_to_transform", layers, "PEFT supports it only with a list of target_modules, not with an expression"
        )
    if config.use_dora and config.lora_bias:
        raise fault(
            "lora_bias", True, "PEFT does not combine it with DoRA; train with lora_bias=False or use_dora=False"
        )
    for name in config.modules_to_save:
        if not can_be_saved(name):
            raise AdapterError(
                f"{CONFIG_FILE}: modules_to_save names {name[:80]!r}; whole modules are served for norms, embed_tokens "
                "and lm_head only. Adapt the module with target_modules instead"
            )


def is_before(version: str | None, major: int, minor: int) -> bool:
    """Whether a PEFT version such as 0.17.2.dev0 is older. None counts as older: PEFT before 0.18 wrote no version."""
    numbers = re.match(r"(\d{1,6})\.(\d{1,6})", version or "")
    return numbers is None or (int(numbers[1]), int(numbers[2])) < (major, minor)
