"""The small files of the source that a packed file contains: config, tokenizer, chat template."""

from __future__ import annotations

from pathlib import Path

from intaglio.errors import PackingError
from intaglio.files.regular_file import open_regular
from intaglio.model.weights import Checkpoint, part_paths
from intaglio.model.weights.gguf import metadata_only
from intaglio.model.weights.packed_model import GGUF_METADATA_FILE

_TAKEN = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)
_MAX_FILE_BYTES = 256 << 20


def source_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The files by name. Raises PackingError for one that cannot be read, ModelFormatError for a damaged GGUF file."""
    if checkpoint.source == "gguf":
        return {GGUF_METADATA_FILE: metadata_only(part_paths(checkpoint.path)[0])}
    paths = [checkpoint.path / name for name in _TAKEN]
    return {path.name: _content(path) for path in paths if path.exists()}


def _content(path: Path) -> bytes:
    with open_regular(path, str(path), PackingError) as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise PackingError(f"{path} has more than {_MAX_FILE_BYTES} bytes")
    return content
