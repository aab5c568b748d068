"""Tensors for modules that this base does not have, or with the names that other tools give them."""

from __future__ import annotations

import numpy as np

from tests.hostile.case import HostileCase, bad_weights
from tests.hostile.cases.silently_wrong_elsewhere import moved, shaped
from tests.hostile.good_adapter import PREFIX, A, B, renamed, with_tensors

CASES: tuple[HostileCase, ...] = (
    bad_weights(
        "a layer past the last",
        "is for layer 3; the base model has layers 0 to 2",
        renamed("layers.2", "layers.3"),
        alone=False,
    ),
    bad_weights(
        "a layer far past the last",
        "is for layer 61; the base model has layers 0 to 2",
        renamed("layers.2", "layers.61"),
        alone=False,
    ),
    bad_weights(
        "a wider model's A",
        "lora_A.*shape .4, 49.; the base model needs",
        shaped(A, lambda a: np.ones((4, 49), "f4")),
        alone=False,
    ),
    bad_weights(
        "a wider model's B",
        "lora_B.*shape .129, 4.; the base model needs",
        shaped(B, lambda b: np.ones((129, 4), "f4")),
        alone=False,
    ),
    bad_weights(
        "an output projection's sizes for a query's",
        "the base model needs",
        with_tensors(lambda tensors: tensors.update({A: np.ones((4, 128), "f4"), B: np.ones((48, 4), "f4")})),
        alone=False,
    ),
    *(
        bad_weights(f"names that begin with {prefix}", "tensor", renamed("base_model.model.model", prefix))
        for prefix in (
            "base_model.model.transformer.h",
            "base_model.model.base_model.model.model",
            "base_model_model_model",
        )
    ),
    bad_weights("GPT's layers", "tensor", renamed("layers.", "h.")),
    bad_weights("projections without their block", "tensor", renamed("self_attn.", "")),
    bad_weights("a projection in the wrong block", "tensor", renamed("self_attn.q_proj", "mlp.q_proj")),
    bad_weights(
        "Llama's names of a GGUF",
        "tensor",
        renamed(f"{PREFIX}.0.self_attn.q_proj.lora_A.weight", "blk.0.attn_q.weight.lora_a"),
    ),
    bad_weights("diffusers' halves", "tensor", renamed("lora_A", "lora_down")),
    bad_weights("kohya's names", "tensor", moved(A, "lora_te_model_layers_0_self_attn_q_proj.lora_down.weight")),
    bad_weights("mlx's halves", "tensor", renamed("lora_A.weight", "lora_a")),
    bad_weights("a fused query, key and value", "qkv_proj", renamed("q_proj", "qkv_proj")),
    bad_weights("a fused gate and up", "gate_up_proj", renamed("down_proj", "gate_up_proj")),
    bad_weights("experts", "tensor", renamed("mlp.down_proj", "mlp.experts.0.down_proj")),
)
