"""Tiny Gemma checkpoints with random weights, written as Hugging Face folders and as GGUF files.

Every dimension differs from every other, and heads · head_dim is not hidden_size, so that a test fails if two are
mixed up. Weights are much larger than a fresh model's: with small ones, faults such as a wrong score scale stay below
any tolerance. Needs NumPy, safetensors and gguf (the writers), not torch. The scripts that make golden logits use
these functions too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import ml_dtypes
import numpy as np
from gguf import quants
from numpy.typing import NDArray
from safetensors.numpy import save_file

Family = Literal["gemma", "gemma2", "gemma3_text"]
FAMILIES: tuple[Family, ...] = ("gemma", "gemma2", "gemma3_text")

Weights = dict[str, NDArray[np.float32]]

_CLASSES = {"gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM"}
_DTYPES: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def tiny_config(family: Family, spelling: Literal["old", "new"] = "new", **changes: Any) -> dict[str, Any]:
    """A config.json for a model of a few hundred thousand parameters.

    spelling  old: Gemma 3's keys for rope and layer types are those of transformers 4.50; new: those of 5
    changes   replace or add keys, e.g. vocab_size=262144
    """
    config: dict[str, Any] = {
        "architectures": [_CLASSES[family]],
        "model_type": family,
        "vocab_size": 512 if family == "gemma" else 256,
        "hidden_size": 48,
        "intermediate_size": 160,
        "num_hidden_layers": {"gemma": 3, "gemma2": 4, "gemma3_text": 7}[family],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 640,
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    if family == "gemma":
        config |= {"hidden_act": "gelu", "rope_theta": 10000.0}
    else:
        config |= {"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 8, "query_pre_attn_scalar": 20}
    if family == "gemma2":
        config |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "rope_theta": 10000.0}
    if family == "gemma3_text":
        config |= _gemma3_rope(spelling, changes.get("num_hidden_layers", config["num_hidden_layers"]))
    return config | changes


def _gemma3_rope(spelling: Literal["old", "new"], num_layers: int) -> dict[str, Any]:
    if spelling == "old":
        return {
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window_pattern": 6,
        }
    kinds = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(num_layers)]
    return {
        "layer_types": kinds,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    }


def random_weights(config: Mapping[str, Any], seed: int = 0) -> Weights:
    """Every parameter of the model, random; the same seed gives the same bits. Norms as Hugging Face stores them."""
    rng = np.random.default_rng(seed)
    is_gemma2 = config["model_type"] == "gemma2"  # its attention cap of 50 changes only large scores
    weights: Weights = {}
    for name, shape in tensor_shapes(config).items():
        if name.endswith("norm.weight"):
            spread = 0.3
        elif len(shape) == 2 and name in ("model.embed_tokens.weight", "lm_head.weight"):
            spread = 0.5 if is_gemma2 else 0.15
        else:
            spread = (2.0 if is_gemma2 else 1.5) / shape[-1] ** 0.5
        weights[name] = rng.standard_normal(shape, dtype=np.float32) * np.float32(spread)
    return weights


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes by tensor name, written out independently of the code under test."""
    hidden, inner, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q_size, kv_size = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config["model_type"] != "gemma":
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.{norm}.weight": (hidden,) for norm in norms}
        if config["model_type"] == "gemma3_text":
            shapes |= {f"{layer}.self_attn.{norm}.weight": (head_dim,) for norm in ("q_norm", "k_norm")}
        shapes[f"{layer}.self_attn.q_proj.weight"] = (q_size, hidden)
        shapes[f"{layer}.self_attn.k_proj.weight"] = (kv_size, hidden)
        shapes[f"{layer}.self_attn.v_proj.weight"] = (kv_size, hidden)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (hidden, q_size)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{layer}.mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{layer}.mlp.down_proj.weight"] = (hidden, inner)
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def write_hf_folder(
    path: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, NDArray[np.float32]],
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    shards: int = 1,
) -> Path:
    """Write config.json and the weights, rounded to `dtype`, in one file or in shards with an index. Returns `path`."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({**config, "dtype": dtype}, indent=2))
    rounded = {name: np.ascontiguousarray(values.astype(_DTYPES[dtype])) for name, values in weights.items()}
    if shards == 1:
        save_file(rounded, path / "model.safetensors", metadata={"format": "pt"})
        return path
    names = list(rounded)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = names[len(names) * shard // shards : len(names) * (shard + 1) // shards]
        save_file({name: rounded[name] for name in part}, path / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(values.nbytes for values in rounded.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return path


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens of a GGUF file, one entry per id. kinds: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte."""

    pieces: Sequence[str]
    scores: Sequence[float]
    kinds: Sequence[int]


def filler_vocabulary(size: int) -> Vocabulary:
    """The five special tokens of Gemma, the 256 bytes if the vocabulary is large enough, then made-up pieces."""
    entries = [("<pad>", 3), ("<eos>", 3), ("<bos>", 3), ("<unk>", 2), ("<mask>", 4)]
    if size >= 5 + 256:
        entries += [(f"<0x{byte:02X}>", 6) for byte in range(256)]
    entries += [(f"piece{i}", 1) for i in range(len(entries), size)]
    return Vocabulary([e[0] for e in entries], [-float(i) for i in range(size)], [e[1] for e in entries])


def write_gguf(
    path: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, NDArray[np.float32]],
    types: str | Mapping[str, str] = "F32",
    vocabulary: Vocabulary | None = None,
    tensors_per_part: int = 0,
    chat_template: str | None = None,
) -> Path:
    """Write a GGUF file as llama.cpp's converter does: 1 added to every norm, names from its own table.

    types  one of F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 for all matrices, or by Hugging Face name (F32 for the rest).
           Norms stay F32; a matrix whose rows are not a whole number of blocks becomes F16.
    tensors_per_part  0 writes one file; else `path` is NAME.gguf, the parts are NAME-00001-of-0000N.gguf and so on; the
                      first of them is returned
    GGUF has no key for query_pre_attn_scalar, and readers use head_dim: if logits matter, set it to that in the config.
    """
    architecture = str(config["model_type"]).removesuffix("_text")
    arch_enum = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    table = gguf.get_tensor_name_map(arch_enum, config["num_hidden_layers"])
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=tensors_per_part)
    _add_hyperparameters(writer, architecture, config)
    _add_vocabulary(writer, vocabulary or filler_vocabulary(config["vocab_size"]))
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for name, values in weights.items():
        gguf_name = table.get_name(name, try_suffixes=(".weight",))
        assert gguf_name is not None, name
        if name.endswith("norm.weight"):
            writer.add_tensor(gguf_name, values + np.float32(1))
            continue
        wanted = types if isinstance(types, str) else types.get(name, "F32")
        kind = gguf.GGMLQuantizationType[wanted]
        if values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = gguf.GGMLQuantizationType.F16
        writer.add_tensor(gguf_name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return min(path.parent.glob(f"{path.stem}-*-of-*.gguf")) if tensors_per_part else path


def _add_hyperparameters(writer: gguf.GGUFWriter, architecture: str, config: Mapping[str, Any]) -> None:
    whole_numbers = {
        "context_length": "max_position_embeddings",
        "embedding_length": "hidden_size",
        "block_count": "num_hidden_layers",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "attention.key_length": "head_dim",
        "attention.value_length": "head_dim",
        "attention.sliding_window": "sliding_window",
    }
    for key, name in whole_numbers.items():
        if name in config:
            writer.add_uint32(f"{architecture}.{key}", config[name])
    for key, name in {
        "attention.layer_norm_rms_epsilon": "rms_norm_eps",
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    }.items():
        if config.get(name) is not None:
            writer.add_float32(f"{architecture}.{key}", config[name])
    rope = config.get("rope_parameters", {}).get("full_attention", {})
    scaling = config.get("rope_scaling") or rope
    writer.add_float32(f"{architecture}.rope.freq_base", config.get("rope_theta") or rope["rope_theta"])
    if scaling.get("rope_type") == "linear":
        writer.add_string(f"{architecture}.rope.scaling.type", "linear")
        writer.add_float32(f"{architecture}.rope.scaling.factor", scaling["factor"])


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_string("tokenizer.ggml.model", "llama")
    writer.add_string("tokenizer.ggml.pre", "default")
    writer.add_array("tokenizer.ggml.tokens", list(vocabulary.pieces))
    writer.add_array("tokenizer.ggml.scores", [float(score) for score in vocabulary.scores])
    writer.add_array("tokenizer.ggml.token_type", list(vocabulary.kinds))
    for name, token_id in {"bos": 2, "eos": 1, "unknown": 3, "padding": 0}.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token_id)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_bool("tokenizer.ggml.add_eos_token", False)
    writer.add_bool("tokenizer.ggml.add_space_prefix", False)
