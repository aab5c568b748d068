"""A git-lfs pointer in place of any file that a model or an adapter has is named as such, with the command to run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from intaglio.base_model import BaseModel
from intaglio.errors import AdapterError, ModelFormatError
from intaglio.lora.peft.reader import AdapterLimits, check_weights_file, read_peft_adapter
from intaglio.model.config import config_from_hf
from intaglio.model.weights import open_checkpoint
from intaglio.settings import load_settings
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json, write_tokenizer_model

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 17209961\n"
CONFIG = tiny_config("gemma", vocab_size=512)
REASON = r"git-lfs pointer .*; run git lfs pull"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_hf_folder(tmp_path / "model", CONFIG, random_weights(CONFIG, 1))
    write_tokenizer_json(folder / "tokenizer.json", tiny_pieces(512))
    return folder


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pointer_in_a_model_folder_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    with pytest.raises(ModelFormatError, match=f"{name}.*{REASON}"):
        BaseModel.open(folder, load_settings(cache_dir=tmp_path))


def test_a_pointer_in_place_of_a_tokenizer_model_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink()
    write_tokenizer_model(folder / "tokenizer.model", tiny_pieces(512))
    BaseModel.open(folder, load_settings(cache_dir=tmp_path))
    (folder / "tokenizer.model").write_text(POINTER)
    with pytest.raises(ModelFormatError, match=f"tokenizer.model.*{REASON}"):
        BaseModel.open(folder, load_settings(cache_dir=tmp_path))


def test_a_pointer_in_place_of_a_gguf_file_is_named(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_text(POINTER)
    with pytest.raises(ModelFormatError, match=f"model.gguf.*{REASON}"):
        open_checkpoint(path)
    shutil.copy(path, tmp_path / "vocabulary.gguf")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFormatError, match=f"vocabulary.gguf.*{REASON}"):
        BaseModel.open(folder, load_settings(cache_dir=tmp_path, tokenizer=str(tmp_path / "vocabulary.gguf")))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_pointer_in_an_adapter_is_named(tmp_path: Path, name: str) -> None:
    base = config_from_hf(CONFIG)
    adapter = write_peft_adapter(tmp_path / "adapter", base)
    (adapter / name).write_text(POINTER)
    with pytest.raises(AdapterError, match=f"{name}.*{REASON}"):
        read_peft_adapter(adapter, base, AdapterLimits())
    if name.endswith(".safetensors"):
        with pytest.raises(AdapterError, match=f"{name}.*{REASON}"):
            check_weights_file(adapter / name, AdapterLimits())
