"""Unusual but valid adapters that other servers read differently: ranks, scalings and spellings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from safetensors.numpy import save

from tests.helpers.adapters import ALL_TARGETS, adapter_tensors
from tests.hostile.case import ValidCase, changed
from tests.hostile.good_adapter import ALPHA, RANK, Files, renamed, tiny_base


def trained(factor: Callable[[str], float], layers: list[int], targets: list[str] | None = None, **config: Any) -> Any:
    """A function that makes the files of a PEFT training with this config, and `factor`."""
    targets = targets or list(ALL_TARGETS)

    def make(good: Files) -> Files:
        keys = changed(good.config, {"target_modules": targets, "layers_to_transform": layers, **config})
        ranks = json.loads(keys)["rank_pattern"]
        tensors = adapter_tensors(tiny_base(), rank=RANK, targets=targets, layers=layers, rank_pattern=ranks, seed=3)
        return Files(keys, save(tensors, {"format": "pt"}))

    return make, factor


def valid(
    name: str, factor: Callable[[str], float], layers: list[int], targets: list[str] | None = None, **config: Any
) -> ValidCase:
    return ValidCase(name, *trained(factor, layers, targets, **config))


def _spelt(name: str, old: str, new: str) -> ValidCase:
    return ValidCase(name, lambda good: Files(good.config, renamed(old, new)(good.weights)), lambda _path: ALPHA / RANK)


VALID: tuple[ValidCase, ...] = (
    valid("one layer of one projection", lambda _path: 2.0, [1], ["k_proj"]),
    valid("every projection but in one layer", lambda _path: 2.0, [2]),
    valid("rsLoRA", lambda _path: ALPHA / math.sqrt(RANK), [0, 1, 2], use_rslora=True),
    valid("a negative alpha", lambda _path: -0.75, [0], lora_alpha=-3),
    valid("a fractional alpha", lambda _path: 0.125, [0], lora_alpha=0.5),
    valid(
        "an alpha pattern", lambda path: 0.25 if path.endswith("q_proj") else 2.0, [0, 2], alpha_pattern={"q_proj": 1}
    ),
    valid("a rank pattern", lambda path: 4.0 if path.endswith("v_proj") else 2.0, [0, 2], rank_pattern={"v_proj": 2}),
    valid(
        "both patterns and rsLoRA",
        lambda path: 3 / math.sqrt(2) if path.endswith("v_proj") else 4.0,
        [1],
        rank_pattern={"v_proj": 2},
        alpha_pattern={"self_attn.v_proj": 3},
        use_rslora=True,
    ),
    valid(
        "the first of two patterns that match",
        lambda path: 1.0 if "layers.0" in path else 2.0,
        [0, 1],
        alpha_pattern={r"layers\.0\..*": 4, ".*": 8},
    ),
    valid(
        "a pattern anchored in front",
        lambda path: 0.5 if "layers.1." in path else 2.0,
        [0, 1],
        alpha_pattern={r"^model\.layers\.1\..*": 2},
    ),
    valid("a pattern that is part of a name", lambda _path: 2.0, [0], alpha_pattern={"proj": 100, "_proj": 100}),
    valid(
        "ranks of 12, which some round up",
        lambda path: 8 / 12 if "mlp" in path else 2.0,
        [0],
        rank_pattern={"gate_proj": 12, "up_proj": 12, "down_proj": 12},
    ),
    valid("all-linear", lambda _path: 2.0, [0, 1, 2], target_modules="all-linear", layers_to_transform=None),
    valid(
        "keys of training",
        lambda _path: 2.0,
        [0],
        eva_config={"rho": 2.0},
        loftq_config={"bits": 4},
        corda_config={},
        lora_dropout=0.5,
        qalora_group_size=7,
        megatron_core="x",
        revision=5,
        inference_mode="?",
        auto_mapping={"a": [1]},
    ),
    valid(
        "unknown keys that are off",
        lambda _path: 2.0,
        [0],
        use_frobnication=False,
        frobnication_config=None,
        frobs=[],
        frob={},
    ),
    _spelt("a raw state dict", ".weight", ".default.weight"),
    _spelt("without PEFT's prefix", "base_model.model.", ""),
    _spelt("a compiled model", "base_model.model.model", "_orig_mod.base_model.model._orig_mod.model"),
    _spelt("a sharded model", "base_model", "module.base_model"),
    _spelt("a multimodal model's text half", "model.model.layers", "model.model.language_model.layers"),
)
