"""Open a Hugging Face folder: config.json, and safetensors in one file or in shards that an index lists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from intaglio.errors import ModelFormatError
from intaglio.files.json_object import read_json_object
from intaglio.model.config import Family, is_multimodal, text_part
from intaglio.model.relatives import refusal
from intaglio.model.weights.checkpoint import Checkpoint, without_tied_head
from intaglio.model.weights.formats import RawTensor
from intaglio.model.weights.mapped_file import errors_prefixed_with
from intaglio.model.weights.names import HEAD, name_from_hugging_face
from intaglio.model.weights.safetensors import read_safetensors

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_MAX_CONFIG_BYTES = 1 << 20
_MAX_INDEX_BYTES = 4 << 20

# A plain file name: an index must not lead us out of its folder.
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")

_FAMILIES: dict[str, Family] = {"gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3"}


def open_hugging_face(folder: Path) -> Checkpoint:
    """Open a folder that has a config.json. Raises ModelFormatError naming the file, key or tensor."""
    config = _read_object(folder / CONFIG_FILE, _MAX_CONFIG_BYTES)
    with errors_prefixed_with(folder / CONFIG_FILE):
        text_config, multimodal = text_part(config), is_multimodal(config)
        family = _family(text_config)
    single = folder / WEIGHTS_FILE
    stored = read_safetensors(single) if single.exists() else _read_shards(folder)
    with errors_prefixed_with(folder):
        tensors = without_tied_head(_with_internal_names(stored, family, multimodal))
        tied = config.get("tie_word_embeddings", text_config.get("tie_word_embeddings", True))
        if tied and HEAD in tensors:
            raise ModelFormatError(
                f"tensor {HEAD!r} differs from the embedding, but {CONFIG_FILE} ties them: "
                "tie_word_embeddings is true, as it is when absent"
            )
    return Checkpoint(folder, "safetensors", config, tensors)


def _family(text_config: Mapping[str, Any]) -> Family:
    model_type = text_config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        raise ModelFormatError(refusal("model_type", model_type))
    if text_config.get("use_bidirectional_attention"):  # checked before the tensors' names, whose error would say less
        raise ModelFormatError("use_bidirectional_attention is set; embedding models are not supported")
    return _FAMILIES[model_type]


def _read_shards(folder: Path) -> dict[str, RawTensor]:
    """Gather the tensors of all shards and compare them with the index, both ways."""
    weight_map = _read_object(folder / INDEX_FILE, _MAX_INDEX_BYTES).get("weight_map")
    with errors_prefixed_with(folder / INDEX_FILE):
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelFormatError("weight_map is not an object that names tensors")
        files = list(dict.fromkeys(_shard_file(folder, name, file) for name, file in weight_map.items()))
    shards = {file: read_safetensors(folder / file) for file in files}
    with errors_prefixed_with(folder / INDEX_FILE):
        for name, file in weight_map.items():
            if name not in shards[file]:
                raise ModelFormatError(f"places tensor {name!r} in {file}, which does not hold it")
        for file, tensors in shards.items():
            for name in tensors:
                if weight_map.get(name) != file:
                    raise ModelFormatError(f"does not place tensor {name!r} in {file}, which holds it")
    return {name: shards[file][name] for name, file in weight_map.items()}


def _read_object(path: Path, max_bytes: int) -> dict[str, Any]:
    return read_json_object(path, max_bytes, str(path), ModelFormatError)


def _shard_file(folder: Path, name: str, file: object) -> str:
    if not isinstance(file, str) or len(file) > 200 or not _SHARD_NAME.fullmatch(file):
        raise ModelFormatError(f"places tensor {name!r} in {file!r}, not a .safetensors file of this folder")
    if not (folder / file).exists():
        raise ModelFormatError(f"places tensor {name!r} in {file}, which is missing")
    return file


def _with_internal_names(stored: dict[str, RawTensor], family: Family, multimodal: bool) -> dict[str, RawTensor]:
    tensors: dict[str, RawTensor] = {}
    for name, raw in stored.items():
        internal = name_from_hugging_face(family, name, multimodal)
        if internal is None:
            continue
        if internal in tensors:
            raise ModelFormatError(f"tensors {tensors[internal].name!r} and {name!r} are both {internal!r}")
        tensors[internal] = raw
    return tensors
