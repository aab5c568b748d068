"""From the tensor names in a file to internal names.

The internal name of a tensor is its Hugging Face name in a text-only checkpoint:
`model.embed_tokens.weight`, `model.layers.0.self_attn.q_proj.weight`, `model.norm.weight`,
`lm_head.weight`.

Easily mistaken: `ffn_norm` in GGUF is the norm before the MLP in every family. Hugging Face calls it
`post_attention_layernorm` in Gemma 1, and uses that name for another norm in Gemma 2 and 3.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from intaglio.errors import ModelFormatError
from intaglio.model.config import Family

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"

_FINAL_NORM = "model.norm.weight"

LINEAR_LAYERS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_1_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_GEMMA_2_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GEMMA_3_NORMS = _GEMMA_2_NORMS | {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}

# GGUF's name of a tensor in a layer, and Hugging Face's, both without the layer and without ".weight".
_LAYER_NAMES: MappingProxyType[Family, dict[str, str]] = MappingProxyType(
    {
        "gemma": LINEAR_LAYERS | _GEMMA_1_NORMS,
        "gemma2": LINEAR_LAYERS | _GEMMA_2_NORMS,
        "gemma3": LINEAR_LAYERS | _GEMMA_3_NORMS,
    }
)

_INDEX = "(0|[1-9][0-9]{0,3})"
_GGUF_LAYER = re.compile(rf"blk\.{_INDEX}\.([a-z_]+)\.weight")
_HF_LAYER = re.compile(rf"model\.layers\.{_INDEX}\.([a-z_.]+)\.weight")

# Prefix of the text model in multimodal Gemma 3 checkpoints, as saved by older and by newer transformers.
_TEXT_PREFIXES = (
    ("language_model.model.", "model."),
    ("model.language_model.", "model."),
    ("language_model.", ""),
)
_GGUF_VISION_PREFIXES = ("v.", "mm.")
_VISION_PREFIXES = tuple(
    f"{outer}{part}." for outer in ("", "model.") for part in ("vision_tower", "multi_modal_projector")
)


def name_from_gguf(family: Family, name: str) -> str | None:
    """The internal name of a GGUF tensor, or None for one of the vision part that Ollama keeps in the same file.

    Raises ModelFormatError for a tensor that the family does not have.
    """
    if family == "gemma3" and name.startswith(_GGUF_VISION_PREFIXES):
        return None
    outside_layers = {"token_embd.weight": EMBEDDING, "output_norm.weight": _FINAL_NORM}
    if family == "gemma3":
        outside_layers["output.weight"] = HEAD
    if name in outside_layers:
        return outside_layers[name]
    match = _GGUF_LAYER.fullmatch(name)
    if match is None or match[2] not in _LAYER_NAMES[family]:
        raise ModelFormatError(f"tensor {name!r} is not part of a {family} model")
    return f"model.layers.{match[1]}.{_LAYER_NAMES[family][match[2]]}.weight"


def name_from_hugging_face(family: Family, name: str, multimodal: bool) -> str | None:
    """The internal name of a tensor in a Hugging Face folder, or None for one that belongs to the vision part.

    multimodal  the folder's config is the wrapper around text and vision; only then a vision part is allowed

    Raises ModelFormatError for a tensor that the family does not have.
    """
    if multimodal and name.startswith(_VISION_PREFIXES):
        return None
    internal = name
    for prefix, replacement in _TEXT_PREFIXES:
        if name.startswith(prefix):
            internal = replacement + name.removeprefix(prefix)
            break
    if internal in (EMBEDDING, HEAD, _FINAL_NORM):
        return internal
    match = _HF_LAYER.fullmatch(internal)
    if match is None or match[2] not in _LAYER_NAMES[family].values():
        raise ModelFormatError(f"tensor {name!r} is not part of a {family} model")
    return internal
