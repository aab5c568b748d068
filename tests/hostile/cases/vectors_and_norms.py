"""Invalid biases, DoRA magnitudes and norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.hostile.case import CONFIG, WEIGHTS, HostileCase, changed
from tests.hostile.good_adapter import PREFIX, Files, Tensors, with_tensors

HIDDEN, VOCAB, LAYERS = 48, 512, 3
MODEL = "base_model.model.model"
Q0 = f"{PREFIX}.0.self_attn.q_proj"
EMBEDDING, HEAD = f"{MODEL}.embed_tokens", "base_model.model.lm_head"
TARGETS = ["q_proj", "down_proj"]


def extra(
    name: str,
    complaint: str,
    add: Callable[[Tensors], Any],
    *spoil: Callable[[Tensors], Any],
    bad: str = WEIGHTS,
    alone: bool = False,
    **config: Any,
) -> HostileCase:
    """The good adapter with a tensor added as PEFT would, the config that goes with it, and then a fault."""

    def make(good: Files) -> Files:
        weights = good.weights
        for change in (add, *spoil):
            weights = with_tensors(change)(weights)
        return Files(changed(good.config, config), weights)

    return HostileCase(name, make, complaint, bad, alone)


def vectors(suffix: str) -> Callable[[Tensors], None]:
    """Add a vector of ones for the outputs of every module."""

    def add(tensors: Tensors) -> None:
        for name, values in list(tensors.items()):
            if name.endswith("lora_B.weight"):
                tensors[name.replace("lora_B.weight", suffix)] = np.ones(len(values), np.float32)

    return add


def put(name: str, *shape: int) -> Callable[[Tensors], None]:
    """Add a tensor of ones, or replace one."""
    return lambda tensors: tensors.update({name: np.ones(shape, np.float32)})


def set_last(name: str, value: float) -> Callable[[Tensors], None]:
    """Set the last value of a tensor."""

    def change(tensors: Tensors) -> None:
        tensors[name].reshape(-1)[-1] = value

    return change


def drop(name: str) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.pop(name)


def both(*changes: Callable[[Tensors], Any]) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for one in changes:
            one(tensors)

    return change


DORA, BIAS = vectors("lora_magnitude_vector"), vectors("lora_B.bias")
MAGNITUDE, B_BIAS = f"{Q0}.lora_magnitude_vector", f"{Q0}.lora_B.bias"

VECTORS = (
    extra(
        "a module without its magnitude", "has no lora_magnitude_vector beside it", DORA, drop(MAGNITUDE), use_dora=True
    ),
    extra(
        "a magnitude without its module",
        "has no lora_A",
        DORA,
        both(drop(f"{Q0}.lora_A.weight"), drop(f"{Q0}.lora_B.weight")),
        use_dora=True,
        alone=True,
    ),
    extra(
        "a magnitude of the inputs",
        "magnitude_vector' has shape .48.; the base model needs .128.",
        DORA,
        put(MAGNITUDE, HIDDEN),
        use_dora=True,
    ),
    extra(
        "a magnitude of one row", "magnitude_vector' has shape .1, 128.", DORA, put(MAGNITUDE, 1, 128), use_dora=True
    ),
    extra("a magnitude that is a number", "magnitude_vector' has shape ..;", DORA, put(MAGNITUDE), use_dora=True),
    extra("a magnitude without values", "magnitude_vector' has shape .0.", DORA, put(MAGNITUDE, 0), use_dora=True),
    extra(
        "a magnitude with NaN",
        "magnitude_vector' holds values that are NaN",
        DORA,
        set_last(MAGNITUDE, np.nan),
        use_dora=True,
        alone=True,
    ),
    extra(
        "an infinite magnitude",
        "magnitude_vector' holds values that are NaN or infinite",
        DORA,
        set_last(MAGNITUDE, -np.inf),
        use_dora=True,
        alone=True,
    ),
    extra(
        "DoRA and a bias", "lora_bias.*DoRA", both(DORA, BIAS), bad=CONFIG, alone=True, use_dora=True, lora_bias=True
    ),
    extra("a module without its bias", "has no lora_B.bias beside it", BIAS, drop(B_BIAS), lora_bias=True),
    extra(
        "a bias of the inputs",
        "lora_B.bias' has shape .48.; the base model needs .128.",
        BIAS,
        put(B_BIAS, HIDDEN),
        lora_bias=True,
    ),
    extra("a bias of one row", "lora_B.bias' has shape .1, 128.", BIAS, put(B_BIAS, 1, 128), lora_bias=True),
    extra(
        "a bias with NaN",
        "lora_B.bias' holds values that are NaN",
        BIAS,
        set_last(B_BIAS, np.nan),
        lora_bias=True,
        alone=True,
    ),
    extra(
        "a bias beyond float32 when it is scaled",
        "lora_B.bias' beyond float32",
        BIAS,
        set_last(B_BIAS, 3e38),
        lora_bias=True,
    ),
)

NORM, INPUT_NORM = f"{MODEL}.norm.weight", f"{PREFIX}.0.input_layernorm.weight"

NORMS = (
    extra(
        "a norm of another width",
        "norm.weight' has shape .49.; the base model needs .48.",
        put(NORM, 49),
        modules_to_save=["norm"],
    ),
    extra("a norm of one row", "norm.weight' has shape .1, 48.", put(NORM, 1, HIDDEN), modules_to_save=["norm"]),
    extra("a norm that is a number", "norm.weight' has shape ..;", put(NORM), modules_to_save=["norm"]),
    extra(
        "a norm with NaN",
        "norm.weight' holds values that are NaN",
        put(NORM, HIDDEN),
        set_last(NORM, np.nan),
        modules_to_save=["norm"],
        alone=True,
    ),
    extra(
        "a norm of a layer past the last",
        "is for layer 3; the base model has layers 0 to 2",
        put(f"{PREFIX}.3.input_layernorm.weight", HIDDEN),
        modules_to_save=["input_layernorm"],
    ),
    extra(
        "a norm of Gemma 3 for Gemma",
        "for a norm that a gemma does not have",
        put(f"{PREFIX}.0.self_attn.q_norm.weight", 32),
        modules_to_save=["q_norm"],
    ),
    extra(
        "a norm of Gemma 2 for Gemma",
        "for a norm that a gemma does not have",
        put(f"{PREFIX}.0.pre_feedforward_layernorm.weight", HIDDEN),
        modules_to_save=["pre_feedforward_layernorm"],
    ),
    extra(
        "another norm than the config names",
        "replaces input_layernorm, but modules_to_save",
        put(INPUT_NORM, HIDDEN),
        modules_to_save=["post_attention_layernorm"],
    ),
    extra(
        "two norms of which one is there",
        "holds no weights of 'post_attention_layernorm'",
        put(INPUT_NORM, HIDDEN),
        modules_to_save=["input_layernorm", "post_attention_layernorm"],
    ),
    extra(
        "a norm under two spellings",
        "the same one under two spellings",
        both(put(NORM, HIDDEN), put("model.norm.weight", HIDDEN)),
        modules_to_save=["norm"],
        alone=True,
    ),
    extra(
        "a norm's bias",
        "is a bias, which no Gemma has",
        put(f"{MODEL}.norm.bias", HIDDEN),
        modules_to_save=["norm"],
        alone=True,
    ),
)

CASES: tuple[HostileCase, ...] = VECTORS + NORMS
