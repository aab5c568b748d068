"""`adapter_config.json` as PEFT writes it: which keys change the arithmetic, which are harmless, which are refused.

Every key is in one of the tables below. A key in none of them is most likely a LoRA variant that is newer than this
file: it is let pass while it is off (null, false, empty, 0) and refused by name when it is on.
Source: LoraConfig of peft 0.21.2, and the keys that other versions and trainers leave behind.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.errors import AdapterError
from intaglio.lora.strict_json import parse_object

CONFIG_FILE = "adapter_config.json"

MODEL_TYPES = ("gemma", "gemma2", "gemma3", "gemma3_text")

# PEFT's own targets for the Gemma family when the key is null.
_DEFAULT_TARGETS = ("q_proj", "v_proj")

# A rank search names every module of the model; no Gemma has more than 434.
_MAX_PATTERN_KEYS = 4096

# Read below.
_USED = frozenset(
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
        "bias",
        "init_lora_weights",
        "base_model_name_or_path",
    ]
)

# Training, provenance, or settings of something that another key turns on. layers_pattern only says where the number of
# layers_to_transform stands in a path, and a Gemma path has one number. bias is without effect where there is none.
_HARMLESS = frozenset(
    [
        "auto_mapping",
        "peft_version",
        "revision",
        "inference_mode",
        "lora_dropout",
        "layers_pattern",
        "megatron_core",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "qalora_group_size",
        "runtime_config",
        "ensure_weight_tying",
    ]
)

_REFUSED = {
    "use_dora": ("DoRA", "Train with use_dora=False"),
    "lora_bias": ("a bias in lora_B", "Train with lora_bias=False"),
    "fan_in_fan_out": ("transposed base weights, which no Gemma has", "Train with fan_in_fan_out=False"),
    "modules_to_save": ("whole modules in place of the base's", "Train without modules_to_save"),
    "trainable_token_indices": ("trained token rows", "Train without trainable_token_indices"),
    "layer_replication": ("another stack of layers than the base's", "Train without layer_replication"),
    "target_parameters": ("LoRA on raw parameters", "Name the projections in target_modules instead"),
    "alora_invocation_tokens": ("activated LoRA, on for part of the prompt only", "Train a plain LoRA"),
    "use_qalora": ("QA-LoRA", "Train with use_qalora=False"),
    "use_bdlora": ("block-diagonal LoRA", "Train without use_bdlora"),
    "arrow_config": ("Arrow routing over several adapters", "Upload the adapters one by one"),
    "kasa_config": ("KaSA, which changes the base weights", "Train without kasa_config"),
    "velora_config": ("VeLoRA", "Train without velora_config"),
    "monteclora_config": ("MonteCLoRA", "Train without monteclora_config"),
    "megatron_config": ("Megatron's parallel layers", "Save the adapter on the plain model"),
}

# Inits that leave the base as it is. PiSSA, OLoRA, CorDA, LoRA-GA and LoftQ change it, and no file holds the change.
_PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """The part of an adapter config that its arithmetic needs.

    rank_pattern, alpha_pattern  expression -> value, in file order: the first that matches a module holds
    target_modules               a list of names, or one expression; "all-linear" is all seven projections
    layers_to_transform          None is every layer
    model_type, base_model       provenance as the file tells it, None where it does not
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


def read_peft_config(path: Path, max_bytes: int) -> PeftConfig:
    """Read and check the file. Raises AdapterError naming the key, its value and what to do."""
    raw = _load_object(path, max_bytes)
    _refuse_kind(raw)
    _refuse_keys(raw)
    targets = raw.get("target_modules")
    layers = _layers(raw.get("layers_to_transform"))
    if layers is not None and isinstance(targets, str) and targets.lower() != "all-linear":
        raise _fault(
            "layers_to_transform", layers, "PEFT takes it with a list of target_modules only, not an expression"
        )
    return PeftConfig(
        r=_rank(raw.get("r"), "r"),
        lora_alpha=_alpha(raw.get("lora_alpha"), "lora_alpha"),
        use_rslora=_flag(raw, "use_rslora"),
        rank_pattern={key: _rank(value, f"rank_pattern {key[:80]!r}") for key, value in _pattern(raw, "rank_pattern")},
        alpha_pattern={
            key: _alpha(value, f"alpha_pattern {key[:80]!r}") for key, value in _pattern(raw, "alpha_pattern")
        },
        target_modules=_DEFAULT_TARGETS if targets is None else _names(targets, "target_modules"),
        exclude_modules=_names(raw.get("exclude_modules") or [], "exclude_modules"),
        layers_to_transform=layers,
        model_type=raw.get("model_type"),
        base_model=_text(raw, "base_model_name_or_path"),
    )


def _load_object(path: Path, max_bytes: int) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise AdapterError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise AdapterError(f"{path.name} has more than {max_bytes} bytes, the most that are taken")
    return parse_object(data, path.name)


def _fault(key: str, value: object, needed: str) -> AdapterError:
    shown = "missing" if value is None else f"{reprlib.repr(value)}"
    return AdapterError(f"{CONFIG_FILE}: {key} is {shown}; {needed}")


def _refuse_kind(raw: Mapping[str, Any]) -> None:
    """What the adapter is as a whole."""
    if raw.get("peft_type") != "LORA":
        raise _fault("peft_type", raw.get("peft_type"), "LORA is the one kind that is served")
    if raw.get("task_type") not in (None, "CAUSAL_LM"):
        raise _fault("task_type", raw["task_type"], "this server generates text; train with task_type CAUSAL_LM")
    if raw.get("model_type") not in (None, *MODEL_TYPES):
        raise _fault(
            "model_type", raw["model_type"], f"an adapter for this server says one of {', '.join(MODEL_TYPES)}"
        )
    if raw.get("bias") not in (None, "none", "all", "lora_only"):
        raise _fault("bias", raw["bias"], "none, all or lora_only is needed")
    init = raw.get("init_lora_weights")
    # `1 in (True,)` holds in Python, so the type is asked too.
    if not isinstance(init, bool | str | None) or init not in _PLAIN_INITS:
        raise _fault(
            "init_lora_weights",
            init,
            "this way to begin changes the base weights, so the adapter does not fit the base as it is. Convert it: "
            "save_pretrained with path_initial_model_for_weight_conversion",
        )


def _refuse_keys(raw: Mapping[str, Any]) -> None:
    """Settings that would change the arithmetic and are not served, known or not."""
    for key, value in raw.items():
        if key in _USED or key in _HARMLESS:
            continue
        if key in _REFUSED:
            # An empty object turns a variant on with its defaults; an empty list names nothing.
            if value is not None and value is not False and value != []:
                what, remedy = _REFUSED[key]
                raise AdapterError(f"{CONFIG_FILE}: {key} asks for {what}, which is not served. {remedy}")
        elif value:
            raise AdapterError(
                f"{CONFIG_FILE}: key {key[:80]!r} is not known here and is set to {reprlib.repr(value)}; "
                "if it does not change what the adapter computes, remove it"
            )


def _rank(value: object, key: str) -> int:
    if type(value) is not int or not 1 <= value < 1 << 31:
        raise _fault(key, value, "a rank, a whole number from 1, is needed")
    return value


def _alpha(value: object, key: str) -> float:
    if type(value) not in (int, float):
        raise _fault(key, value, "a number is needed; without it the scaling of the adapter is unknown")
    try:
        alpha = float(value)  # type: ignore[arg-type]
    except OverflowError:
        alpha = math.inf
    if not math.isfinite(alpha):
        raise _fault(key, value, "a finite number is needed")
    return alpha


def _flag(raw: Mapping[str, Any], key: str) -> bool:
    value = raw.get(key)
    if value is not None and not isinstance(value, bool):
        raise _fault(key, value, "true or false is needed")
    return bool(value)


def _text(raw: Mapping[str, Any], key: str) -> str | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        raise _fault(key, value, "text is needed")
    return value


def _pattern(raw: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    value = raw.get(key)
    if value is None:
        return []
    if not isinstance(value, dict) or len(value) > _MAX_PATTERN_KEYS:
        raise _fault(key, value, f"an object of at most {_MAX_PATTERN_KEYS} module patterns is needed")
    return list(value.items())


def _names(value: object, key: str) -> tuple[str, ...] | str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _fault(key, value, "a list of module names or one expression is needed")
    return tuple(value)


def _layers(value: object) -> frozenset[int] | None:
    layers = [value] if type(value) is int else value
    if layers is None or layers == []:
        return None
    if not isinstance(layers, list) or not all(type(layer) is int and layer >= 0 for layer in layers):
        raise _fault("layers_to_transform", value, "a layer index or a list of them is needed")
    return frozenset(layers)
