"""Two valid adapters that together have every kind of tensor, and a check that an adapter equals its file.

The expected values are computed from the tensors of the official reader and a few numbers of the config, one line per
kind, without code of the package: an adapter that is read from a damaged file must have the values of that file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from intaglio.lora.adapter import LoraAdapter
from intaglio.model.config import ModelConfig, config_from_hf
from tests.helpers.adapters import adapter_tensors, peft_config
from tests.helpers.checkpoints import tiny_config
from tests.hostile.good_adapter import PREFIX, Files

RANK, ALPHA = 4, 6
VOCAB, HIDDEN = 64, 48
IDS = [9, 2, 33]  # not sorted: the rows of the file are in the order of the config

_MODEL = "base_model.model.model"
_HEAD = "base_model.model.lm_head"
_TARGETS = ["q_proj", "down_proj"]


def small_base() -> ModelConfig:
    """A vocabulary of 64, so that a table is no larger than a matrix."""
    return config_from_hf(tiny_config("gemma", vocab_size=VOCAB))


def adapter_with(kinds: str, base: ModelConfig) -> Files:
    """ "bias": biases, norms and token rows. "magnitude": DoRA, LoRA on the embedding, a whole head."""
    tensors = adapter_tensors(base, rank=RANK, targets=_TARGETS, seed=4)
    more: dict[str, Any]
    if kinds == "bias":
        _add_vectors(tensors, "lora_B.bias")
        for name in ("norm", *(f"layers.{layer}.input_layernorm" for layer in range(base.num_layers))):
            tensors[f"{_MODEL}.{name}.weight"] = _random(HIDDEN)
        tensors[f"{_MODEL}.embed_tokens.token_adapter.trainable_tokens_delta"] = _random(len(IDS), HIDDEN)
        saved = ["norm", "input_layernorm"]
        more = {"lora_bias": True, "modules_to_save": saved, "trainable_token_indices": IDS}
    else:
        tensors[f"{_MODEL}.embed_tokens.lora_embedding_A"] = _random(RANK, VOCAB)
        tensors[f"{_MODEL}.embed_tokens.lora_embedding_B"] = _random(HIDDEN, RANK)
        _add_vectors(tensors, "lora_magnitude_vector")
        tensors[f"{_MODEL}.embed_tokens.lora_magnitude_vector"] = _random(HIDDEN)
        tensors[f"{_HEAD}.weight"] = _random(VOCAB, HIDDEN)
        targets = [*_TARGETS, "embed_tokens"]
        more = {"use_dora": True, "target_modules": targets, "modules_to_save": ["lm_head"]}
    config = peft_config(r=RANK, lora_alpha=ALPHA, **({"target_modules": _TARGETS} | more))
    return Files(json.dumps(config).encode(), save(tensors, {"format": "pt"}))


def check_equals_file(adapter: LoraAdapter, weights: bytes) -> None:
    """Each tensor of the file is in the adapter, at the place its name says, and the adapter has no others."""
    found = dict(_parts(adapter))
    for name, values in load(weights).items():
        place, expected = _expected(name, values.astype(np.float32))
        np.testing.assert_array_equal(found.pop(place), expected, err_msg=name)
    assert set(found) <= {("rows", (-1, "lm_head"))}, "if the base is tied, the rows are the head's too"


def _expected(name: str, values: NDArray[np.float32]) -> tuple[Any, NDArray[np.float32]]:
    """The place of a tensor, as `_parts` names it, and the values that must be there."""
    path, _, _ = name.removeprefix("base_model.model.").removeprefix("model.").partition(".lora_")
    layer, _, module = path.removeprefix("layers.").partition(".")
    key = (int(layer), module) if path.startswith("layers.") else (-1, path)
    scaling = np.float32(ALPHA / RANK)
    rules: dict[str, Callable[[], tuple[Any, NDArray[np.float32]]]] = {
        "lora_A.weight": lambda: (("a", key), values),
        "lora_embedding_A": lambda: (("a", key), values),
        "lora_B.weight": lambda: (("b", key), values * scaling),
        "lora_embedding_B": lambda: (("b", key), values * scaling),
        "lora_B.bias": lambda: (("bias", key), values * scaling),
        "lora_magnitude_vector": lambda: (("magnitude", key), values),
        "trainable_tokens_delta": lambda: (("rows", (-1, "embed_tokens")), values[np.argsort(IDS)]),
        "lm_head.weight": lambda: (("table", (-1, "lm_head")), values),
        "norm.weight": lambda: (("norm", (key[0], key[1].removesuffix(".weight"))), values + np.float32(1)),
    }
    return next(rule() for end, rule in rules.items() if name.endswith(end))


def _parts(adapter: LoraAdapter) -> Any:
    tensors = adapter.tensors
    for key, pair in tensors.pairs.items():
        yield from ((("a", key), pair.a), (("b", key), pair.b))
        yield from (
            ((kind, key), vector)
            for kind, vector in (("bias", pair.bias), ("magnitude", pair.magnitude))
            if vector is not None
        )
    yield from ((("norm", key), norm) for key, norm in tensors.norms.items())
    yield from ((("table", (-1, name)), table) for name, table in tensors.tables.items())
    yield from ((("rows", (-1, name)), rows.rows) for name, rows in tensors.rows.items())


def _add_vectors(tensors: dict[str, NDArray[Any]], suffix: str) -> None:
    for name, values in list(tensors.items()):
        if name.startswith(PREFIX) and name.endswith("lora_B.weight"):
            tensors[name.replace("lora_B.weight", suffix)] = _random(len(values))


def _random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).normal(0, 1, shape).astype(np.float32)
