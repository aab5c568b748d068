"""Adapters that contradict themselves, or the base, in what they do to embedding, head, norms and vectors: refused with
the tensor or key by name. Each spoils a stored adapter of PEFT's in one respect.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.errors import AdapterError
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import config_from_hf
from tests.golden import cases
from tests.lora.edited_files import Tensors, rewrite, set_keys, spoil

PREFIX = "base_model.model.model"
TABLE, LAST = f"{PREFIX}.embed_tokens", "base_model.model.lm_head"
ROWS = f"{TABLE}.token_adapter.trainable_tokens_delta"


def extra(**tensors: tuple[int, ...]) -> Callable[[Tensors], None]:
    """More tensors, all ones: name with / for . -> shape."""

    def apply(into: Tensors) -> None:
        into.update({name.replace("/", "."): np.ones(shape, np.float32) for name, shape in tensors.items()})

    return apply


NOTHING: Callable[[Tensors], Any] = lambda tensors: None  # noqa: E731

FAULTS: dict[str, tuple[cases.Base, str, dict[str, Any], Callable[[Tensors], Any], str]] = {
    "a magnitude too few": (
        "gemma",
        "dora",
        {},
        lambda t: t.pop(f"{LAST}.lora_magnitude_vector"),
        "lora_B.weight' has no lora_magnitude_vector beside it, but use_dora",
    ),
    "a magnitude for each token": (
        "gemma",
        "dora",
        {},
        spoil(f"{TABLE}.lora_magnitude_vector", lambda m: np.ones(512, np.float32)),
        "lora_magnitude_vector' has shape [512]; the base model needs [48]",
    ),
    "a bias too short": (
        "gemma",
        "bias",
        {},
        spoil(f"{LAST}.lora_B.bias", lambda b: b[:-1]),
        "lora_B.bias' has shape [511]; the base model needs [512]",
    ),
    "a bias too few": (
        "gemma",
        "bias",
        {},
        lambda t: t.pop(f"{LAST}.lora_B.bias"),
        "lora_B.weight' has no lora_B.bias beside it, but lora_bias",
    ),
    "another vocabulary": (
        "untied",
        "embedding",
        {},
        spoil(f"{TABLE}.lora_embedding_A", lambda a: np.hstack([a, a])),
        "lora_embedding_A' has shape [2, 512]; the base model needs [rank, 256]",
    ),
    "half a pair": (
        "untied",
        "embedding",
        {},
        lambda t: t.pop(f"{TABLE}.lora_embedding_B"),
        "lora_embedding_A' has no lora_B beside it",
    ),
    "no target": ("untied", "embedding", {"target_modules": ["q_proj"]}, NOTHING, "does not adapt model.embed_tokens"),
    "all-linear": (
        "untied",
        "embedding",
        {"target_modules": "all-linear"},
        NOTHING,
        "does not adapt model.embed_tokens",
    ),
    "tied, and one missing": (
        "gemma2",
        "tied",
        {},
        lambda t: [t.pop(n) for n in list(t) if "lm_head" in n],
        "ensure_weight_tying is on, but only one of embed_tokens and lm_head has a LoRA",
    ),
    "tied, and not the same": (
        "gemma2",
        "tied",
        {},
        spoil(f"{LAST}.lora_A.weight", lambda a: a * 2),
        "ensure_weight_tying is on, but what adapter_model.safetensors has for embed_tokens and for lm_head differs",
    ),
    "tied tables, one missing": (
        "gemma3_text",
        "saved_embedding",
        {"ensure_weight_tying": True},
        NOTHING,
        "ensure_weight_tying is on, but only embed_tokens was saved",
    ),
    "tied tables that differ": (
        "gemma3_text",
        "saved_embedding",
        {"ensure_weight_tying": True},
        extra(**{f"{LAST}.weight": (256, 48)}),
        "for embed_tokens and for lm_head differs",
    ),
    "a norm of another family": (
        "gemma",
        "tokens",
        {"modules_to_save": ["q_norm"]},
        extra(**{f"{PREFIX}.layers.0.self_attn.q_norm.weight": (32,)}),
        "is for a norm that a gemma does not have",
    ),
    "a norm of a layer too many": (
        "gemma",
        "tokens",
        {"modules_to_save": ["norm"]},
        extra(**{f"{PREFIX}.layers.3.input_layernorm.weight": (48,)}),
        "is for layer 3; the base model has layers 0 to 2",
    ),
    "a norm too long": (
        "gemma",
        "tokens",
        {"modules_to_save": ["norm"]},
        extra(**{f"{PREFIX}.norm.weight": (49,)}),
        "has shape [49]; the base model needs [48]",
    ),
    "a table of another vocabulary": (
        "untied",
        "saved_head",
        {},
        spoil(f"{LAST}.weight", lambda w: np.vstack([w, w[:1]])),
        "lm_head.weight' has shape [257, 48]; the base model needs [256, 48]. The vocabulary was resized",
    ),
    "a table that is promised": (
        "untied",
        "saved_head",
        {"modules_to_save": ["lm_head", "1.input_layernorm", "embed_tokens"]},
        NOTHING,
        "holds no weights of 'embed_tokens', which modules_to_save",
    ),
    "a norm that this family does not have": (
        "gemma",
        "tokens",
        {"modules_to_save": ["pre_feedforward_layernorm"]},
        NOTHING,
        "or take the name out if the model has no such module",
    ),
    "a token too many": (
        "gemma",
        "tokens",
        {"trainable_token_indices": [77, 5, 130, 4]},
        NOTHING,
        "trainable_tokens_delta' has 3 rows; trainable_token_indices in adapter_config.json names 4 tokens",
    ),
    "a token beyond the vocabulary": (
        "gemma",
        "tokens",
        {"trainable_token_indices": [77, 5, 512]},
        NOTHING,
        "names token 512; the base model has 512. Train without resizing",
    ),
    "tokens of another module": (
        "gemma",
        "tokens",
        {"trainable_token_indices": {"norm": [1, 2, 3]}},
        NOTHING,
        "trainable_token_indices names 'norm'; rows of embed_tokens",
    ),
    "rows too short": (
        "gemma",
        "tokens",
        {},
        spoil(ROWS, lambda rows: rows[:, :47]),
        "trainable_tokens_delta' has shape [3, 47]; the base model needs [tokens, 48]",
    ),
    "rows for the head that are not there": (
        "gemma",
        "tokens",
        {"trainable_token_indices": {"embed_tokens": [77, 5, 130], "lm_head": [1]}},
        NOTHING,
        "holds no rows of lm_head, which trainable_token_indices",
    ),
    "the same rows twice on one table": (
        "gemma",
        "tokens",
        {"trainable_token_indices": {"embed_tokens": [77, 5, 130], "lm_head": [77, 5, 130]}},
        extra(**{f"{LAST}.token_adapter.trainable_tokens_delta": (3, 48)}),
        "this base has one table for both, so PEFT drops it. Train on this base",
    ),
    "the embedding's rows beside the head too": (  # as PEFT saves with save_embedding_layers=True
        "gemma",
        "tokens",
        {},
        extra(**{f"{LAST}.token_adapter.trainable_tokens_delta": (3, 48)}),
        "so PEFT drops it. Save the adapter again with save_embedding_layers=False",
    ),
    "one table under two names": (
        "gemma",
        "tokens",
        {"trainable_token_indices": {"embed_tokens": [77, 5, 130], "model.embed_tokens": [1]}},
        NOTHING,
        "names model.embed_tokens twice, as 'embed_tokens' and 'model.embed_tokens'; name it once",
    ),
    "rows and a LoRA on one path": (
        "gemma",
        "tokens",
        {"target_modules": ["q_proj", "down_proj", "embed_tokens"]},
        extra(**{f"{TABLE}.lora_embedding_A": (1, 512), f"{TABLE}.lora_embedding_B": (48, 1)}),
        "embed_tokens is changed by a LoRA and by trainable_token_indices at once",
    ),
    "a table and a LoRA on one path": (
        "gemma3_text",
        "saved_embedding",
        {"target_modules": ["q_proj", "down_proj", "embed_tokens"]},
        extra(**{f"{TABLE}.lora_embedding_A": (1, 256), f"{TABLE}.lora_embedding_B": (48, 1)}),
        "embed_tokens is changed by modules_to_save and by a LoRA at once",
    ),
    "shared rows under a table": (
        "gemma",
        "tokens",
        {"modules_to_save": ["lm_head"]},
        extra(**{f"{LAST}.weight": (512, 48)}),
        "lm_head is changed by modules_to_save and by trainable_token_indices at once, which",
    ),
}


@pytest.mark.parametrize(("base", "name", "config", "change", "complaint"), FAULTS.values(), ids=FAULTS.keys())
def test_adapters_that_contradict_themselves_or_the_base_are_refused_by_name(
    tmp_path: Path,
    base: cases.Base,
    name: str,
    config: dict[str, Any],
    change: Callable[[Tensors], Any],
    complaint: str,
) -> None:
    folder = Path(shutil.copytree(cases.adapter_folder(base, name), tmp_path / name))
    model = (cases.untied_model() if base == "untied" else cases.tiny_model(base))[0]
    set_keys(folder, **config)
    rewrite(folder, change)
    with pytest.raises(AdapterError) as refusal:
        read_peft_adapter(folder, config_from_hf(model), AdapterLimits())
    assert complaint in str(refusal.value)
