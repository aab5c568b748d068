"""Adapters as `mlx_lm.lora` saves them: its arguments as adapter_config.json, matrices transposed, other names.

The forms are those of files that mlx-lm 0.32.2 trained and saved with MLX 0.32.4 for a CPU.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.model.config import ModelConfig
from tests.helpers.adapters import ALL_TARGETS, adapter_tensors


def mlx_config(**changes: Any) -> dict[str, Any]:
    """The keys that mlx-lm writes, with some of them replaced or added."""
    return {
        "adapter_path": "adapters",
        "batch_size": 4,
        "clear_cache_threshold": 0,
        "config": None,
        "data": "data/",
        "fine_tune_type": "lora",
        "grad_accumulation_steps": 1,
        "grad_checkpoint": False,
        "iters": 600,
        "learning_rate": 1e-05,
        "lora_parameters": {"rank": 4, "dropout": 0.0, "scale": 20.0},
        "lr_schedule": None,
        "mask_prompt": False,
        "max_seq_length": 2048,
        "model": "mlx-community/gemma-3-270m-it-bf16",
        "num_layers": 16,
        "optimizer": "adam",
        "optimizer_config": {"adam": {}, "adamw": {}, "muon": {}, "sgd": {}, "adafactor": {}},
        "project_name": None,
        "report_to": None,
        "resume_adapter_file": None,
        "save_every": 100,
        "seed": 0,
        "steps_per_eval": 200,
        "steps_per_report": 10,
        "test": False,
        "test_batches": 500,
        "train": True,
        "trust_remote_code": False,
        "val_batches": 25,
    } | changes


def write_mlx_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """A file as MLX writes it: `__metadata__` is null, names are sorted, the data lies in another order, no padding."""
    offsets, position = {}, 0
    for name in reversed(list(tensors)):
        offsets[name] = [position, position + tensors[name].nbytes]
        position += tensors[name].nbytes
    header: dict[str, Any] = {"__metadata__": None}
    for name in sorted(tensors):
        kind = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[tensors[name].dtype.name]
        header[name] = {"data_offsets": offsets[name], "dtype": kind, "shape": list(tensors[name].shape)}
    text = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(
        struct.pack("<Q", len(text)) + text + b"".join(tensors[n].tobytes() for n in reversed(list(tensors)))
    )


def write_mlx_adapter(
    folder: Path,
    config: ModelConfig,
    *,
    rank: int = 4,
    scale: float = 20.0,
    targets: Sequence[str] = ALL_TARGETS,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    dtype: str = "float32",
    dora: bool = False,
    keys: Sequence[str] | None = None,
    **config_overrides: Any,
) -> Path:
    """Write adapter_config.json and adapters.safetensors with the numbers of `write_peft_adapter`; return the folder.

    dora  magnitudes too, of 1 to 2
    keys  `lora_parameters.keys`
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = adapter_tensors(config, rank=rank, targets=targets, layers=layers, seed=seed, dtype=dtype)
    tensors: dict[str, NDArray[Any]] = {}
    random = np.random.default_rng(seed)
    for name, values in made.items():
        path, _, half = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
        tensors[f"{path}.{half.lower()}"] = np.ascontiguousarray(values.T)
        if dora and half == "lora_B":
            tensors[f"{path}.m"] = np.asarray(random.uniform(1, 2, values.shape[0]), values.dtype)
    parameters = {"rank": rank, "dropout": 0.0, "scale": scale} | ({} if keys is None else {"keys": list(keys)})
    settings = mlx_config(lora_parameters=parameters, fine_tune_type="dora" if dora else "lora", num_layers=-1)
    (folder / "adapter_config.json").write_text(json.dumps(settings | config_overrides, indent=4))
    write_mlx_tensors(folder / "adapters.safetensors", tensors)
    return folder
