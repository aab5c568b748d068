"""Files that other servers accept and compute wrongly, or in part: this server refuses them.

Sources: the converters and loaders of vLLM, SGLang, LoRAX, TGI, llama.cpp and mlx, and reports against them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.hostile.case import HostileCase, bad_config, bad_weights
from tests.hostile.good_adapter import PREFIX, RANK, A, B, Tensors, with_extra_tensors, with_tensors

Q0 = "model__layers__0__self_attn__q_proj"
HIDDEN, VOCAB, Q_OUT = 48, 512, 128
NO_OTHER_HALF = "lora_B beside it|lora_A beside it|has no lora|other half|halves|incomplete"


def without(name: str) -> Callable[[bytes], bytes]:
    return with_tensors(lambda tensors: tensors.pop(name))


def moved(name: str, to: str) -> Callable[[bytes], bytes]:
    return with_tensors(lambda tensors: tensors.update({to: tensors.pop(name)}))


def shaped(name: str, change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    return with_tensors(lambda tensors: tensors.update({name: np.ascontiguousarray(change(tensors[name]))}))


def rank_changed(module: str, rank: int) -> Callable[[bytes], bytes]:
    """A and B of one module with another rank than in the config."""

    def change(tensors: Tensors) -> None:
        a, b = f"{PREFIX}.{module}.lora_A.weight", f"{PREFIX}.{module}.lora_B.weight"
        tensors[a], tensors[b] = np.ones((rank, tensors[a].shape[1]), "f4"), np.ones((tensors[b].shape[0], rank), "f4")

    return with_tensors(change)


def extra_tensor(name: str, complaint: str, tensor: str, shape: tuple[int, ...], *, alone: bool = True) -> HostileCase:
    """A tensor beside the good ones. `tensor` is its name after `base_model.model.`, with `__` for dots."""
    return bad_weights(name, complaint, with_extra_tensors(**{tensor: shape}), alone=alone)


HALVES = (
    bad_weights("a B without A", f"q_proj.lora_B.*({NO_OTHER_HALF})", without(A)),
    bad_weights("an A without B", f"q_proj.lora_A.*({NO_OTHER_HALF})", without(B)),
    bad_weights(
        "all A and no B",
        NO_OTHER_HALF,
        with_tensors(lambda tensors: [tensors.pop(name) for name in list(tensors) if "lora_B" in name]),
    ),
    bad_weights("a B for another layer's A", NO_OTHER_HALF, moved(B, B.replace("layers.0", "layers.1"))),
    bad_weights("halves of different ranks", "has shape.*one rank", shaped(A, lambda a: a[:3])),
    bad_weights(
        "transposed halves",
        "shape",
        with_tensors(lambda tensors: tensors.update({A: tensors[A].T.copy(), B: tensors[B].T.copy()})),
    ),
    bad_weights("a transposed A", "has shape.*one rank", shaped(A, lambda a: a.T)),
    bad_weights("a stack of adapters", "shape", shaped(A, lambda a: a[None])),
)

KINDS = (
    extra_tensor("KaSA's diagonal", "KaSA|lora_diag", f"{Q0}__lora_diag", (RANK,)),
    extra_tensor("DoRA's vector without use_dora", "magnitude", f"{Q0}__lora_magnitude_vector", (Q_OUT,), alone=False),
    extra_tensor(
        "DoRA's vector of another adapter",
        "holds the adapters",
        f"{Q0}__lora_magnitude_vector__default__weight",
        (Q_OUT,),
    ),
    extra_tensor("a bias of B without lora_bias", "bias", f"{Q0}__lora_B__bias", (Q_OUT,), alone=False),
    extra_tensor("a bias of A", "bias", f"{Q0}__lora_A__bias", (RANK,)),
    extra_tensor("a bias of the base", "bias", f"{Q0}__base_layer__bias", (Q_OUT,)),
    extra_tensor("a whole projection", "tensor", f"{Q0}__weight", (Q_OUT, HIDDEN)),
    extra_tensor("a whole projection of the base", "base", f"{Q0}__base_layer__weight", (Q_OUT, HIDDEN)),
    extra_tensor(
        "a projection saved whole", "modules_to_save|tensor", f"{Q0}__modules_to_save__default__weight", (Q_OUT, HIDDEN)
    ),
    extra_tensor("a norm that no key asks for", "norm", "model__norm__weight", (HIDDEN,), alone=False),
    extra_tensor(
        "mergekit's norm of a layer", "norm", "model__layers__0__input_layernorm__weight", (HIDDEN,), alone=False
    ),
    extra_tensor(
        "an embedding that no key asks for", "embed_tokens", "model__embed_tokens__weight", (VOCAB, HIDDEN), alone=False
    ),
    extra_tensor("a head that no key asks for", "lm_head", "lm_head__weight", (VOCAB, HIDDEN), alone=False),
    extra_tensor("half a LoRA of the embedding", "embed", "model__embed_tokens__lora_embedding_A", (RANK, VOCAB)),
    extra_tensor("the other half of it", "embed", "model__embed_tokens__lora_embedding_B", (HIDDEN, RANK)),
    extra_tensor("half a LoRA of the head", "lm_head", "lm_head__lora_A__weight", (RANK, HIDDEN)),
    extra_tensor("a linear's halves on the embedding", "embed", "model__embed_tokens__lora_A__weight", (RANK, VOCAB)),
    extra_tensor(
        "a resized vocabulary",
        "base_layer|embed_tokens",
        "model__embed_tokens__base_layer__weight",
        (VOCAB + 1, HIDDEN),
        alone=False,
    ),
    extra_tensor(
        "a resized vocabulary of the head",
        "base_layer|lm_head",
        "lm_head__base_layer__weight",
        (VOCAB + 1, HIDDEN),
        alone=False,
    ),
    extra_tensor(
        "token rows that no key asks for",
        "token",
        "model__embed_tokens__token_adapter__trainable_tokens_delta",
        (2, HIDDEN),
        alone=False,
    ),
    extra_tensor(
        "the whole base beside token rows",
        "token|base",
        "model__embed_tokens__token_adapter__base_layer__weight",
        (VOCAB, HIDDEN),
        alone=False,
    ),
    extra_tensor(
        "a vision tower",
        "vision",
        "model__vision_tower__vision_model__encoder__layers__0__self_attn__q_proj__lora_A__weight",
        (RANK, HIDDEN),
    ),
    extra_tensor(
        "an image projector",
        "projector",
        "model__multi_modal_projector__mm_input_projection__lora_A__weight",
        (RANK, HIDDEN),
    ),
    extra_tensor("a classifier's head", "score", "score__weight", (2, HIDDEN)),
    extra_tensor("a value head", "v_head", "v_head__summary__weight", (1, HIDDEN)),
    extra_tensor("AdaLoRA's values", "lora_E", f"{Q0}__lora_E", (RANK, 1)),
    extra_tensor("LoHa", "hada_w1_a", f"{Q0}__hada_w1_a", (Q_OUT, RANK)),
    extra_tensor("a prompt", "prompt_embeddings", "prompt_embeddings", (8, HIDDEN)),
    extra_tensor("an optimizer's state", "exp_avg", f"{Q0}__lora_A__weight__exp_avg", (RANK, HIDDEN)),
    extra_tensor("a rotary buffer", "inv_freq", "model__layers__0__self_attn__rotary_emb__inv_freq", (16,)),
)

# The config of one training with the weights of another, where the difference can be noticed.
MISMATCHED = (
    bad_config(
        "targets without the module",
        "does not adapt model.layers.0.mlp.down_proj|does not adapt model.layers.0.self_attn.q_proj",
        alone=False,
        target_modules=["v_proj"],
    ),
    bad_config("an expression that takes another module", "does not adapt", alone=False, target_modules=r".*\.k_proj"),
    bad_config(
        "an excluded module",
        "does not adapt model.layers.2.mlp.down_proj|does not adapt .*down_proj",
        alone=False,
        exclude_modules=["down_proj"],
    ),
    bad_config("another layer", "does not adapt model.layers.2", alone=False, layers_to_transform=[0]),
    bad_config("another rank", "lora_A.* has rank 4; adapter_config.json gives .* rank 8", alone=False, r=8),
    bad_config(
        "another rank for one module",
        "rank 4; adapter_config.json gives model.layers.2.mlp.down_proj rank 2",
        alone=False,
        rank_pattern={"2.mlp.down_proj": 2},
    ),
    bad_weights(
        "one module of another rank",
        "layers.2.mlp.down_proj.* has rank 3; .* rank 4",
        rank_changed("2.mlp.down_proj", 3),
        alone=False,
    ),
    bad_config(
        "another family", "model_type is 'gemma2'; the base model here is a gemma", alone=False, model_type="gemma2"
    ),
    bad_config("use_dora without a magnitude", "dora|DoRA|magnitude", alone=False, use_dora=True),
    bad_config("lora_bias without a bias", "bias", alone=False, lora_bias=True),
    bad_config("a saved norm that is not there", "modules_to_save|norm", alone=False, modules_to_save=["norm"]),
    bad_config("a saved head that is not there", "modules_to_save|lm_head", alone=False, modules_to_save=["lm_head"]),
    bad_config("token rows that are not there", "trainable_token|token", alone=False, trainable_token_indices=[5, 6]),
)

# If accepted, these would give the base model's completions, without an error.
NOTHING = (
    bad_config("alpha 0", "would change nothing", alone=False, lora_alpha=0),
    bad_weights(
        "an adapter that was never trained",
        "would change nothing",
        with_tensors(lambda tensors: [tensors[name].fill(0) for name in tensors if "lora_B" in name]),
        alone=False,
    ),
    bad_weights(
        "an adapter of zeros",
        "would change nothing",
        with_tensors(lambda tensors: [values.fill(0) for values in tensors.values()]),
        alone=False,
    ),
    bad_weights(
        "an adapter of negative zeros",
        "would change nothing",
        with_tensors(lambda tensors: [values.fill(-0.0) for values in tensors.values()]),
        alone=False,
    ),
)

CASES: tuple[HostileCase, ...] = NOTHING + HALVES + KINDS + MISMATCHED
