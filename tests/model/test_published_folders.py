"""Folders of Google's checkpoints at their true sizes: their configs, tensor names, shards and index. The files are
sparse: their weights are zeros that take no space on the disk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from intaglio.engine.memory.available import AvailableMemory
from intaglio.engine.memory.machine import plan_for_machine
from intaglio.model.config import config_from_hf, is_multimodal
from intaglio.model.loader import read_config
from intaglio.model.weights import open_checkpoint
from intaglio.settings import load_settings

GB = 10**9
SHARD_BYTES = 5 * GB  # of one file, as save_pretrained divides them

# What public copies of the config files have; keys that do not matter for inference are left out.
_GEMMA1 = {
    "architectures": ["GemmaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 256,
    "hidden_act": "gelu",
    "initializer_range": 0.02,
    "max_position_embeddings": 8192,
    "model_type": "gemma",
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 256000,
}
_GEMMA2 = {
    "architectures": ["Gemma2ForCausalLM"],
    "attention_bias": False,
    "attn_logit_softcapping": 50.0,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": 1,
    "final_logit_softcapping": 30.0,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "model_type": "gemma2",
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "torch_dtype": "float32",
    "use_cache": True,
    "vocab_size": 256000,
}
_GEMMA3 = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "eos_token_id": [1, 106],
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "torch_dtype": "bfloat16",
    "vocab_size": 262144,
}
_LARGE_GEMMA3 = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model", "num_hidden_layers": 27},
}
_LARGE_TEXT = {
    "model_type": "gemma3_text",
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024,
}


def _sizes(layers: int, hidden: int, inner: int) -> dict[str, int]:
    return {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": inner}


def _heads(heads: int, kv_heads: int, head_dim: int = 256) -> dict[str, int]:
    return {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}


CONFIGS: dict[str, dict[str, Any]] = {
    "gemma-2b": _GEMMA1 | _sizes(18, 2048, 16384) | _heads(8, 1),
    "gemma-7b": _GEMMA1 | _sizes(28, 3072, 24576) | _heads(16, 16),
    "gemma-1.1-7b-it": _GEMMA1
    | _sizes(28, 3072, 24576)
    | _heads(16, 16)
    | {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"},
    "gemma-2-2b": _GEMMA2 | _sizes(26, 2304, 9216) | _heads(8, 4) | {"query_pre_attn_scalar": 256},
    "gemma-2-9b-it": _GEMMA2 | _sizes(42, 3584, 14336) | _heads(16, 8) | {"query_pre_attn_scalar": 256},
    "gemma-2-27b-it": _GEMMA2 | _sizes(46, 4608, 36864) | _heads(32, 16, 128) | {"query_pre_attn_scalar": 144},
    "gemma-3-270m-it": _GEMMA3 | _sizes(18, 640, 2048),
    "gemma-3-1b-it": _GEMMA3 | _sizes(26, 1152, 6912),
    "gemma-3-4b-it": _LARGE_GEMMA3 | {"text_config": _LARGE_TEXT | _sizes(34, 2560, 10240)},
    "gemma-3-12b-it": _LARGE_GEMMA3 | {"text_config": _LARGE_TEXT | _sizes(48, 3840, 15360) | _heads(16, 8)},
    "gemma-3-27b-it": _LARGE_GEMMA3
    | {"text_config": _LARGE_TEXT | _sizes(62, 5376, 21504) | _heads(32, 16, 128) | {"query_pre_attn_scalar": 168}},
}
# Layers, window of the first layer, context, the head's rows; and the KV bytes of a token in all layers, in bfloat16.
EXPECTED = {
    "gemma-2b": (18, None, 8192, 256_000, 18_432),
    "gemma-7b": (28, None, 8192, 256_000, 458_752),
    "gemma-1.1-7b-it": (28, None, 8192, 256_000, 458_752),
    "gemma-2-2b": (26, 4096, 8192, 256_000, 106_496),
    "gemma-2-9b-it": (42, 4096, 8192, 256_000, 344_064),
    "gemma-2-27b-it": (46, 4096, 8192, 256_000, 376_832),
    "gemma-3-270m-it": (18, 512, 32_768, 262_144, 18_432),
    "gemma-3-1b-it": (26, 512, 32_768, 262_144, 26_624),
    "gemma-3-4b-it": (34, 1024, 131_072, 262_208, 139_264),
    "gemma-3-12b-it": (48, 1024, 131_072, 262_208, 393_216),
    "gemma-3-27b-it": (62, 1024, 131_072, 262_208, 507_904),
}
VISION = {
    "vision_tower.vision_model.embeddings.position_embedding.weight": (4096, 1152),
    "multi_modal_projector.mm_input_projection_weight": (1152, 2560),
}
# Multimodal folders as they were first published, and as transformers saves them since its version 4.52.
PREFIXES = {"published": ("language_model.", ""), "saved": ("model.language_model.", "model.")}


def write_with_holes(folder: Path, config: Mapping[str, Any], names: str = "published") -> Path:
    """A folder whose tensors have their true names and shapes, in shards, and no content."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    shapes = config_from_hf(dict(config), "bfloat16").tensor_shapes()
    if is_multimodal(dict(config)):
        text, vision = PREFIXES[names]
        inner = "" if names == "saved" else "model."
        shapes = {text + inner + name.removeprefix("model."): shape for name, shape in shapes.items()}
        shapes |= {vision + name: shape for name, shape in VISION.items()}
    dtype, size = ("F32", 4) if config["torch_dtype"] == "float32" else ("BF16", 2)
    shards: list[dict[str, Any]] = [{}]
    used = 0
    for name, shape in shapes.items():
        length = size * math.prod(shape)
        if used + length > SHARD_BYTES:
            shards.append({})
            used = 0
        shards[-1][name] = {"dtype": dtype, "shape": shape, "data_offsets": [used, used + length]}
        used += length
    files = [f"model-{index:05d}-of-{len(shards):05d}.safetensors" for index in range(1, len(shards) + 1)]
    for file, tensors in zip(files, shards, strict=True):
        header = json.dumps(tensors).encode()
        with (folder / file).open("wb") as out:
            out.write(len(header).to_bytes(8, "little") + header)
            out.truncate(8 + len(header) + max(tensor["data_offsets"][1] for tensor in tensors.values()))
    weight_map = {name: file for file, tensors in zip(files, shards, strict=True) for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_of_true_size_opens_and_its_memory_can_be_planned(name: str, tmp_path: Path) -> None:
    folder = write_with_holes(tmp_path / name, CONFIGS[name])
    with open_checkpoint(folder) as checkpoint:
        config = read_config(checkpoint)
    layers, window, context, rows, kv_bytes = EXPECTED[name]
    assert (config.num_layers, config.layers[0].window, config.context_length, config.vocab_size) == (
        layers, window, context, rows
    )  # fmt: skip
    assert config.layers[5].window is None or config.family == "gemma2"
    assert 2 * 2 * config.kv_size * layers == kv_bytes
    settings = load_settings(cache_dir=tmp_path / "cache", format="w4")
    # The reference backend widens every weight to float32.
    plan = plan_for_machine([folder], settings, AvailableMemory(400 * GB, "memory of a test"))
    assert f"longest sequence {context:,}, as the model has" in plan.table([name])


@pytest.mark.parametrize("names", PREFIXES)
def test_the_text_part_of_a_multimodal_folder_is_found_under_either_name(names: str, tmp_path: Path) -> None:
    folder = write_with_holes(tmp_path / "model", CONFIGS["gemma-3-4b-it"], names)
    with open_checkpoint(folder) as checkpoint:
        assert read_config(checkpoint).num_layers == 34
        assert not any("vision" in name for name in checkpoint.names())
