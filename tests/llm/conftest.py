"""A tiny base model for `LLM` and `AsyncLLM`."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio import LLM, SamplingParams
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json

GREEDY = SamplingParams(temperature=0, max_tokens=12)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    config = tiny_config("gemma3_text", vocab_size=512)
    write_hf_folder(folder, config, random_weights(config, 4))
    write_tokenizer_json(folder / "tokenizer.json", tiny_pieces(512))
    return folder


@pytest.fixture(scope="module")
def llm(base_folder: Path) -> LLM:
    return LLM(base_folder, cache_dir=base_folder / "cache", kv_cache_bytes=1 << 24)
