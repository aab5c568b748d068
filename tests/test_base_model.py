"""What the settings and the checkpoint make of a base model's engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.base_model import BaseModel
from intaglio.settings import load_settings
from tests.helpers.checkpoints import random_weights, tiny_config, write_gguf, write_hf_folder
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config("gemma", vocab_size=512)
    folder = write_hf_folder(tmp_path_factory.mktemp("plain"), config, random_weights(config, 1))
    write_tokenizer_json(folder / "tokenizer.json", tiny_pieces(512))
    return folder


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config("gemma", vocab_size=512)
    path = tmp_path_factory.mktemp("quantized") / "model.gguf"
    return write_gguf(path, config, random_weights(config, 1), types="Q8_0")


@pytest.mark.parametrize(
    ("fmt", "beside_plain", "beside_quantized"),
    [
        ("auto", "float32", "float16"),
        ("w8", "float16", "float16"),
        ("w4", "float16", "float16"),
        ("bf16", "float32", "float32"),
        ("f32", "float32", "float32"),
    ],
)
def test_adapters_are_exact_beside_exact_weights_and_small_beside_quantized_ones(
    plain: Path, quantized: Path, tmp_path: Path, fmt: str, beside_plain: str, beside_quantized: str
) -> None:
    settings = load_settings(format=fmt, cache_dir=tmp_path)
    found = [BaseModel.open(path, settings).engine_spec(settings).adapter_dtype for path in (plain, quantized)]
    assert found == [beside_plain, beside_quantized]
