"""The weights of a Gemma, from a GGUF file or from a Hugging Face folder.

Files are memory-mapped and checked when they are opened; a tensor is decoded when it is requested. A tensor that
cannot be used is refused by name: nothing in a checkpoint is skipped silently. Does not know ops or adapters.

    formats      the storage types, and a tensor as it is stored
    dequantize   decoding to float32
    gguf, gguf_parts, safetensors, hugging_face, packed_model    the file formats
    mapped_file  files as arrays of bytes
    names        from a file's names to Hugging Face names
    checkpoint   the interface to an open checkpoint, the same for all formats
"""

from __future__ import annotations

from pathlib import Path

from intaglio.errors import ModelFormatError
from intaglio.model.config import Family
from intaglio.model.weights.checkpoint import Checkpoint, check_shapes, without_tied_head
from intaglio.model.weights.formats import RawTensor, TensorInfo
from intaglio.model.weights.gguf import StringArray
from intaglio.model.weights.gguf_parts import part_paths, read_gguf_model
from intaglio.model.weights.hugging_face import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, open_hugging_face
from intaglio.model.weights.mapped_file import errors_prefixed_with
from intaglio.model.weights.names import name_from_gguf
from intaglio.model.weights.packed_model import is_packed_model, open_packed_model

__all__ = ["Checkpoint", "RawTensor", "StringArray", "TensorInfo", "check_shapes", "open_checkpoint", "part_paths"]

_ARCHITECTURES: dict[str, Family] = {"gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3"}


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a .gguf file (of several parts: any of them), a file of `intaglio pack`, a folder with config.json and
    safetensors, or a folder with exactly one GGUF model.

    Does not check that the tensors fit the config: `check_shapes` does. Raises ModelFormatError naming the file, key or
    tensor that is wrong.
    """
    if not path.is_dir():
        return open_packed_model(path) if is_packed_model(path) else _open_gguf(path)
    if any((path / file).exists() for file in (WEIGHTS_FILE, INDEX_FILE)):
        return open_hugging_face(path)
    gguf_files = sorted(file for file in path.iterdir() if file.suffix == ".gguf")
    if gguf_files and set(gguf_files) <= set(part_paths(gguf_files[0])):
        return _open_gguf(gguf_files[0])
    if gguf_files:
        raise ModelFormatError(
            f"{path} holds {len(gguf_files)} .gguf files; name one: {', '.join(f.name for f in gguf_files)}"
        )
    raise ModelFormatError(
        f"{path} holds no weights: expected {CONFIG_FILE} with {WEIGHTS_FILE} or {INDEX_FILE}, "
        "or one .gguf file (pickle files such as pytorch_model.bin are never read)"
    )


def _open_gguf(path: Path) -> Checkpoint:
    file = read_gguf_model(path)
    architecture = file.metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in _ARCHITECTURES:
        raise ModelFormatError(
            f"{path}: general.architecture is {architecture!r}; {', '.join(_ARCHITECTURES)} are read"
        )
    family = _ARCHITECTURES[architecture]
    with errors_prefixed_with(path):
        named = {name_from_gguf(family, name): raw for name, raw in file.tensors.items()}
    tensors = {name: raw for name, raw in named.items() if name is not None}
    return Checkpoint(path, "gguf", file.metadata, without_tied_head(tensors))
