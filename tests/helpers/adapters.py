"""Adapters with random weights, written as PEFT 0.21.2 writes them. Needs NumPy and safetensors, not PEFT.

A and B are random and large enough to change a tiny model's logits clearly: with B = 0, as in a fresh adapter, every
fault would go unnoticed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from intaglio.model.config import ModelConfig

ALL_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

_DTYPES: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def write_peft_adapter(
    folder: Path,
    config: ModelConfig,
    *,
    rank: int = 4,
    alpha: float = 8,
    targets: Sequence[str] = ALL_TARGETS,
    rslora: bool = False,
    rank_pattern: Mapping[str, int] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    dtype: str = "float32",
    **config_overrides: Any,
) -> Path:
    """Write adapter_config.json and adapter_model.safetensors for a base; return the folder.

    targets           projections by the last part of their name; they determine the tensors
    layers            layers_to_transform; None: all
    config_overrides  keys of adapter_config.json to add or replace; the tensors do not follow them
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = peft_config(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(targets),
        use_rslora=rslora,
        rank_pattern=dict(rank_pattern or {}),
        alpha_pattern=dict(alpha_pattern or {}),
        layers_to_transform=None if layers is None else list(layers),
    )
    tensors = adapter_tensors(
        config, rank=rank, targets=targets, rank_pattern=rank_pattern, layers=layers, seed=seed, dtype=dtype
    )
    (folder / "adapter_config.json").write_text(json.dumps(settings | config_overrides, indent=2))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def adapter_tensors(
    config: ModelConfig,
    *,
    rank: int = 4,
    targets: Sequence[str] = ALL_TARGETS,
    rank_pattern: Mapping[str, int] | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    dtype: str = "float32",
) -> dict[str, NDArray[Any]]:
    """The tensors under PEFT's names: A [rank, in] of deviation 1 / sqrt(in), B [out, rank] of 0.3 / sqrt(rank)."""
    random = np.random.default_rng(seed)
    tensors: dict[str, NDArray[Any]] = {}
    for layer in range(config.num_layers) if layers is None else layers:
        for projection, (out_features, in_features) in config.linear_layer_shapes().items():
            if projection.rpartition(".")[2] not in targets:
                continue
            path = f"model.layers.{layer}.{projection}"
            r = value_for_module(rank_pattern or {}, path, rank)
            a = random.normal(0, in_features**-0.5, (r, in_features))
            b = random.normal(0, 0.3 * r**-0.5, (out_features, r))
            tensors[f"base_model.model.{path}.lora_A.weight"] = a.astype(_DTYPES[dtype])
            tensors[f"base_model.model.{path}.lora_B.weight"] = b.astype(_DTYPES[dtype])
    return tensors


def write_converted_adapter(
    folder: Path,
    config: ModelConfig,
    *,
    moved: float,
    rank: int = 4,
    targets: Sequence[str] = ALL_TARGETS,
    seed: int = 0,
) -> Path:
    """Write an adapter that began with PiSSA or OLoRA, as PEFT's `path_initial_model_for_weight_conversion` leaves it:
    of twice the rank, the trained matrices beside the initial ones, whose product is taken away.

    moved  how far the training moved each matrix, relative to its initial values; about the size of b · a relative to
           that of its halves
    """
    folder.mkdir(parents=True, exist_ok=True)
    initial = adapter_tensors(config, rank=rank, targets=targets, seed=seed)
    way = adapter_tensors(config, rank=rank, targets=targets, seed=seed + 1)
    tensors = {}
    for name, values in initial.items():
        trained = values + np.float32(moved) * way[name]
        is_a = ".lora_A." in name
        tensors[name] = np.concatenate([trained, values] if is_a else [trained, -values], axis=0 if is_a else 1)
    settings = peft_config(r=2 * rank, lora_alpha=4 * rank, target_modules=list(targets))
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def value_for_module(pattern: Mapping[str, Any], path: str, default: Any) -> Any:
    """The value of the first key that matches a module's path, as PEFT finds it."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", path)), default)


def peft_config(**changes: Any) -> dict[str, Any]:
    """All keys of an adapter_config.json of PEFT 0.21.2, with some of them replaced or added."""
    return {
        "alora_invocation_tokens": None,
        "alpha_pattern": {},
        "arrow_config": None,
        "auto_mapping": None,
        "base_model_name_or_path": "google/gemma-tiny",
        "bias": "none",
        "corda_config": None,
        "ensure_weight_tying": False,
        "eva_config": None,
        "exclude_modules": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "kasa_config": None,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": 8,
        "lora_bias": False,
        "lora_dropout": 0.0,
        "lora_ga_config": None,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "monteclora_config": None,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "r": 4,
        "rank_pattern": {},
        "revision": None,
        "target_modules": list(ALL_TARGETS),
        "target_parameters": None,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": None,
        "use_bdlora": None,
        "use_dora": False,
        "use_qalora": False,
        "use_rslora": False,
        "velora_config": None,
    } | changes
