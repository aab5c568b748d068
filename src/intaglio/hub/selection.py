"""Which files of a repository are needed to serve its model. Works on file names alone, of the hub or of the cache."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from intaglio.errors import HubError
from intaglio.hub.reference import PREFIX, HubReference
from intaglio.model.weights.gguf_parts import part_paths
from intaglio.model.weights.hugging_face import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE

# Fetched beside the weights of a Hugging Face folder, if the repository has them.
TEXT_FILES = (
    CONFIG_FILE, INDEX_FILE, "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
DEFAULT_QUANTIZATION = "Q4_K_M"  # as llama.cpp has it

_QUANTIZATION = re.compile(r"(?:^|[-._])((?:UD-)?(?:I?Q\d|TQ\d|B?F16|F32|FP16|FP32|MXFP4|NVFP4)\w*)$", re.IGNORECASE)
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_NOT_A_MODEL = ("mmproj", "imatrix")  # an image encoder, and the statistics of a quantization
_OTHER_WEIGHTS = (".bin", ".pth", ".msgpack", ".h5", ".npz", ".onnx", ".safetensors")
_ADAPTER = "adapter_config.json"
_MAX_NAMED = 12


def is_safe(name: str) -> bool:
    """Whether a name from the hub is a path inside the folder that it is written to."""
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and not name.startswith("/")
        and "\\" not in name
        and "\0" not in name
        and not {"..", "/"} & {*parts}
    )


def wants_gguf(names: Collection[str], reference: HubReference) -> bool:
    """Whether the reference means a GGUF file, rather than the repository as a folder.

    Raises HubError if the repository has neither form of weights.
    """
    if reference.file is not None or reference.quantization is not None:
        return True
    if CONFIG_FILE in names and (WEIGHTS_FILE in names or INDEX_FILE in names):
        return False
    if any(name.endswith(".gguf") for name in names):
        return True
    if _ADAPTER in names:
        raise HubError(
            f"{reference.repo} is a LoRA adapter, not a base model: serve its base, and upload the adapter's two files "
            "with `intaglio adapters upload`"
        )
    others = sorted(name for name in names if name.endswith(_OTHER_WEIGHTS))[:_MAX_NAMED]
    found = f"; it has {', '.join(others)}" if others else ""
    raise HubError(f"{reference.repo} has neither {WEIGHTS_FILE} with {CONFIG_FILE} nor a .gguf file{found}")


def text_files(names: Collection[str]) -> list[str]:
    """Config, index, tokenizer and chat template, those that the repository has."""
    return [name for name in TEXT_FILES if name in names]


def safetensors_files(names: Collection[str], index: Mapping[str, Any] | None, repo: str) -> list[str]:
    """The files of the weights. index: the parsed index file, if there is one and not a single file.

    Raises HubError for an index that names files which the repository does not have.
    """
    if WEIGHTS_FILE in names or index is None:
        return [WEIGHTS_FILE]
    weight_map = index.get("weight_map")
    files = sorted({str(file) for file in weight_map.values()}) if isinstance(weight_map, dict) else []
    wrong = [file for file in files if file not in names]
    if wrong:
        raise HubError(f"{repo}: {INDEX_FILE} names {', '.join(wrong[:_MAX_NAMED])}, which is not there")
    if not files:
        raise HubError(f"{repo}: {INDEX_FILE} names no file")
    return files


def gguf_files(names: Collection[str], reference: HubReference, *, all_names: bool = True) -> list[str]:
    """All parts, in order, of the GGUF model that a reference names.

    all_names  whether `names` are all files of the repository, rather than those in a cache: only then is a single
               model the one that a reference without a quantization means

    Raises HubError listing what there is, if there is no such file or more than one.
    """
    models = _gguf_models(names)
    chosen = _chosen(models, reference, all_names)
    missing = [part for part in models[chosen] if part not in names]
    if missing:
        raise HubError(f"{reference.repo} has {chosen} without its other parts: {', '.join(missing[:_MAX_NAMED])}")
    return models[chosen]


def quantization_of(name: str) -> str | None:
    """The quantization at the end of a GGUF file's name, in capitals; None if there is none."""
    found = _QUANTIZATION.search(_PART.sub("", PurePosixPath(name).stem))
    return found[1].upper() if found else None


def _gguf_models(names: Collection[str]) -> dict[str, list[str]]:
    """First part -> all parts, of each GGUF model."""
    models: dict[str, list[str]] = {}
    for name in sorted(names):
        file = PurePosixPath(name).name.lower()
        if file.endswith(".gguf") and not any(word in file for word in _NOT_A_MODEL):
            parts = [path.as_posix() for path in part_paths(Path(name))]
            models[parts[0]] = parts
    return models


def _chosen(models: Mapping[str, list[str]], reference: HubReference, all_names: bool) -> str:
    """The first part of the model that is meant."""
    if reference.file is not None:
        for first, parts in models.items():
            if reference.file in parts:
                return first
        raise HubError(f"{reference.repo} has no file {reference.file}; {_listed(models, reference)}")
    wanted = (reference.quantization or DEFAULT_QUANTIZATION).upper()
    found = [first for first in models if quantization_of(first) == wanted]
    found = found or [first for first in models if (quantization_of(first) or "").removeprefix("UD-") == wanted]
    if reference.quantization is None and len(models) == 1 and all_names:
        found = list(models)
    if len(found) == 1:
        return found[0]
    if found:
        raise HubError(
            f"{reference.repo} has {wanted} more than once: {', '.join(found[:_MAX_NAMED])}; "
            f"name the file, such as {PREFIX}{reference.repo}/{found[0]}"
        )
    raise HubError(f"{reference.repo} has no {wanted}; {_listed(models, reference)}")


def _listed(models: Mapping[str, list[str]], reference: HubReference) -> str:
    if not models:
        return "it has no .gguf file"
    kinds = sorted({kind for first in models if (kind := quantization_of(first))})
    if reference.file is None and kinds:
        return f"it has {', '.join(kinds)}: choose one, such as {PREFIX}{reference.repo}:{kinds[0]}"
    return f"it has {', '.join(list(models)[:_MAX_NAMED])}"
