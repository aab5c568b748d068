"""Metadata of GGUF files as they are published: by llama.cpp's converter, Unsloth, bartowski, Google's QAT and Ollama.

The keys are those that programs print when they load such files. Each must mean what the checkpoint's config means.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from intaglio.base_model import BaseModel
from intaglio.errors import ModelFormatError
from intaglio.model.config import ModelConfig, config_from_gguf, config_from_hf
from intaglio.model.weights import open_checkpoint
from intaglio.settings import load_settings
from tests.helpers.checkpoints import random_weights, tiny_config, write_gguf
from tests.model.test_published_folders import CONFIGS

_OF_LLAMA_CPP = {
    "general.type": "model",
    "general.size_label": "7B",
    "general.license": "gemma",
    "general.quantization_version": 2,
    "general.file_type": 15,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.unknown_token_id": 3,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.add_eos_token": False,
    "tokenizer.ggml.add_space_prefix": False,
}
_OF_UNSLOTH = _OF_LLAMA_CPP | {
    "general.name": "Gemma-3-12B-It",
    "general.basename": "Gemma-3-12B-It",
    "general.finetune": "it",
    "general.quantized_by": "Unsloth",
    "general.repo_url": "https://huggingface.co/unsloth",
    "general.tags": ["unsloth", "gemma3"],
    "tokenizer.ggml.eos_token_id": 106,
    "quantize.imatrix.file": "gemma-3-12b-it-GGUF/imatrix_unsloth.dat",
    "quantize.imatrix.dataset": "unsloth_calibration_gemma-3-12b-it.txt",
    "quantize.imatrix.entries_count": 336,
    "quantize.imatrix.chunks_count": 663,
}
_OF_BARTOWSKI = _OF_LLAMA_CPP | {
    "quantize.imatrix.file": "/models_out/gemma-GGUF/gemma.imatrix",
    "quantize.imatrix.dataset": "/training_dir/calibration_datav3.txt",
    "quantize.imatrix.entries_count": 322,
    "quantize.imatrix.chunks_count": 128,
}


def _sizes(text: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "context_length": text.get("max_position_embeddings", 131_072),
        "embedding_length": text["hidden_size"],
        "block_count": text["num_hidden_layers"],
        "feed_forward_length": text["intermediate_size"],
        "attention.head_count": text.get("num_attention_heads", 8),
        "attention.head_count_kv": text.get("num_key_value_heads", 4),
        "attention.key_length": text.get("head_dim", 256),
        "attention.value_length": text.get("head_dim", 256),
        "attention.layer_norm_rms_epsilon": 1e-6,
    }


def _text(name: str) -> dict[str, Any]:
    text: dict[str, Any] = CONFIGS[name].get("text_config", CONFIGS[name])
    return text


def of_gemma(name: str) -> dict[str, Any]:
    return _with_prefix("gemma", _sizes(_text(name))) | _OF_LLAMA_CPP


def of_gemma2(name: str) -> dict[str, Any]:
    caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "attention.sliding_window": 4096}
    return _with_prefix("gemma2", _sizes(_text(name)) | caps) | _OF_BARTOWSKI


def of_gemma3(name: str, publisher: Mapping[str, Any] = _OF_LLAMA_CPP) -> dict[str, Any]:
    text = _text(name)
    values = _sizes(text) | {"rope.freq_base": 1e6, "attention.sliding_window": text["sliding_window"]}
    if text["rope_scaling"]:
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
    return _with_prefix("gemma3", values) | publisher


def of_gemma3_now(name: str) -> dict[str, Any]:
    """As newer versions of the converter write it."""
    layers = _text(name)["num_hidden_layers"]
    flags = [(layer + 1) % 6 != 0 for layer in range(layers)]
    swa = {"rope.freq_base_swa": 10_000.0, "attention.sliding_window_pattern": flags}
    return of_gemma3(name, _OF_UNSLOTH) | _with_prefix("gemma3", swa)


_OF_OLLAMA = {
    "general.parameter_count": 4299915632,
    "tokenizer.ggml.add_padding_token": False,
    "tokenizer.ggml.add_unknown_token": False,
}
_OLLAMA_VISION = {
    "gemma3.mm.tokens_per_image": 256,
    "gemma3.vision.attention.head_count": 16,
    "gemma3.vision.attention.layer_norm_epsilon": 1e-6,
    "gemma3.vision.block_count": 27,
    "gemma3.vision.embedding_length": 1152,
    "gemma3.vision.feed_forward_length": 4304,
    "gemma3.vision.image_size": 896,
    "gemma3.vision.num_channels": 3,
    "gemma3.vision.patch_size": 14,
}


def of_ollama(name: str) -> dict[str, Any]:
    """gemma3:4b and larger of Ollama's library: nothing about RoPE, no epsilon."""
    raw = _with_prefix("gemma3", _sizes(_text(name)) | {"attention.sliding_window": 1024})
    del raw["gemma3.attention.layer_norm_rms_epsilon"]
    return raw | _OF_LLAMA_CPP | _OF_OLLAMA | _OLLAMA_VISION


def of_ollama_1b(name: str) -> dict[str, Any]:
    """gemma3:1b of Ollama's library: other names for RoPE, and the cap of a Gemma 2."""
    rope = {"rope.global.freq_base": 1e6, "rope.local.freq_base": 10_000.0, "final_logit_softcapping": 30.0}
    return _with_prefix("gemma3", _sizes(_text(name)) | rope | {"attention.sliding_window": 512}) | _OF_OLLAMA


def _with_prefix(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in values.items()}


PUBLISHED = [
    ("gemma-2b", of_gemma("gemma-2b")),
    ("gemma-7b", of_gemma("gemma-7b")),
    ("gemma-1.1-7b-it", of_gemma("gemma-1.1-7b-it") | _OF_BARTOWSKI),
    ("gemma-2-2b", of_gemma2("gemma-2-2b")),
    ("gemma-2-9b-it", of_gemma2("gemma-2-9b-it")),
    ("gemma-2-27b-it", of_gemma2("gemma-2-27b-it")),
    ("gemma-3-270m-it", of_gemma3_now("gemma-3-270m-it")),
    ("gemma-3-1b-it", of_gemma3("gemma-3-1b-it")),
    ("gemma-3-1b-it", of_ollama_1b("gemma-3-1b-it")),
    ("gemma-3-4b-it", of_gemma3("gemma-3-4b-it", _OF_BARTOWSKI)),
    ("gemma-3-4b-it", of_gemma3_now("gemma-3-4b-it")),
    ("gemma-3-4b-it", of_ollama("gemma-3-4b-it")),
    ("gemma-3-12b-it", of_gemma3("gemma-3-12b-it", _OF_UNSLOTH)),
    ("gemma-3-12b-it", of_ollama("gemma-3-12b-it")),
    ("gemma-3-27b-it", of_gemma3("gemma-3-27b-it")),
    ("gemma-3-27b-it", of_ollama("gemma-3-27b-it")),
]


@pytest.mark.parametrize(("name", "metadata"), PUBLISHED)
def test_the_metadata_of_a_published_file_means_what_the_checkpoints_config_means(
    name: str, metadata: dict[str, Any]
) -> None:
    folder = config_from_hf(CONFIGS[name])
    found = config_from_gguf(metadata, folder.vocab_size)
    assert comparable(found) == comparable(folder)


def comparable(config: ModelConfig) -> ModelConfig:
    """Without what differs on purpose: a folder rounds its scale of the embedding, and names the end of a turn."""
    return replace(config, embed_scale=0.0, eos_ids=(), score_scale=round(config.score_scale, 12))


# ------------------------------------------------------------------------------------- a whole file as Ollama has it


def write_as_ollama(path: Path, source: Path, rows: int) -> None:
    """The model of another file as Ollama's converter would write it: with vision tensors, and tokens without a row."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, "gemma3")
    for field in reader.fields.values():
        name, value = field.name, field.contents()
        if name.startswith("GGUF.") or name == "general.architecture" or ".rope." in name or "rms_epsilon" in name:
            continue
        if name in ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
            more = {"tokens": "<image_soft_token>", "scores": -1000.0, "token_type": 4}[name.rpartition(".")[2]]
            value = [*value[:rows], more]
        if name.endswith("eos_token_id"):
            writer.add_array("tokenizer.ggml.eos_token_ids", [1, 4])
        writer.add_key_value(name, value, field.types[0], field.types[1] if len(field.types) > 1 else None)
    for name, value in _OLLAMA_VISION.items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(name, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.add_tensor("v.patch_embedding.weight", np.zeros((4, 4), np.float16))
    writer.add_tensor("v.blk.0.mlp.fc1.weight", np.zeros((4, 4), np.float16))
    writer.add_tensor("mm.mm_input_projection.weight", np.zeros((4, 4), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_file_of_ollama_is_served_as_the_same_model_of_llama_cpp(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config("gemma3_text", max_position_embeddings=131_072, vocab_size=512)
    config["rope_parameters"]["full_attention"] = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    config["rope_parameters"]["sliding_attention"] = {"rope_type": "default", "rope_theta": 10_000.0}
    config["query_pre_attn_scalar"] = config["head_dim"]
    source = write_gguf(tmp_path / "source.gguf", config, random_weights(config))
    blob = tmp_path / "sha256-667b0c1932bc6ffc593ed1d03f895bf2dc8dc6df21db3042284a6f4416b06a29"
    write_as_ollama(blob, source, config["vocab_size"])
    settings = load_settings(cache_dir=tmp_path / "cache")
    with caplog.at_level(logging.INFO, "intaglio"):
        found, expected = BaseModel.open(blob, settings), BaseModel.open(source, settings)
    assert found.config == replace(expected.config, rms_norm_eps=1e-6)
    assert found.tokenizer.vocab_size == config["vocab_size"]
    assert found.tokenizer.encode("piece7 piece9") == expected.tokenizer.encode("piece7 piece9")
    assert f"{blob} is a multimodal model; its text part is served" in caplog.text
    with open_checkpoint(blob) as ours, open_checkpoint(source) as theirs:
        assert ours.names() == theirs.names()


def test_vision_tensors_are_allowed_in_a_gemma_3_alone(tmp_path: Path) -> None:
    config = tiny_config("gemma2")
    source = write_gguf(tmp_path / "source.gguf", config, random_weights(config))
    content = source.read_bytes()
    assert content.count(b"blk.0.ffn_up.weight") == 1
    source.write_bytes(content.replace(b"blk.0.ffn_up.weight", b"v.k.0.ffn_up.weight"))
    with pytest.raises(ModelFormatError, match=r"'v\.k\.0\.ffn_up\.weight' is not part of a gemma2 model"):
        open_checkpoint(source)
