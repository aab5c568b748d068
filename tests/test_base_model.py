"""What the settings and the checkpoint make of a base model's engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from intaglio.base_model import BaseModel, make_request
from intaglio.errors import BadInputError, ModelFormatError
from intaglio.request import MAX_LOGIT_BIAS, Priority, SamplingParams
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


def test_a_folder_whose_tokenizer_lists_the_image_token_opens(plain: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plain, tmp_path / "model")
    document = json.loads((folder / "tokenizer.json").read_text())
    document["added_tokens"].append({"id": 512, "content": "<image_soft_token>", "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(document))
    assert BaseModel.open(folder, load_settings(cache_dir=tmp_path)).tokenizer.vocab_size == 512


def test_a_tokenizer_with_more_pieces_than_the_embedding_is_refused_with_both_numbers(
    plain: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(plain, tmp_path / "model")
    write_tokenizer_json(folder / "tokenizer.json", tiny_pieces(520))
    with pytest.raises(ModelFormatError, match=r"520 tokens, the model's embedding 512"):
        BaseModel.open(folder, load_settings(cache_dir=tmp_path))


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


@pytest.mark.parametrize(
    ("asked", "beside_plain", "beside_quantized"), [("auto", "f32", "bf16"), ("int8", "int8", "int8")]
)
def test_the_engine_gets_the_format_of_keys_and_values(
    plain: Path, quantized: Path, tmp_path: Path, asked: str, beside_plain: str, beside_quantized: str
) -> None:
    settings = load_settings(kv_format=asked, cache_dir=tmp_path)
    found = [BaseModel.open(path, settings).engine_spec(settings).limits.kv_format for path in (plain, quantized)]
    assert found == [beside_plain, beside_quantized]


@pytest.mark.parametrize(("asked", "dtype"), [("f32", "float32"), ("f16", "float16"), ("int8", "int8")])
def test_adapters_are_held_as_the_setting_asks_whatever_the_base(
    plain: Path, quantized: Path, tmp_path: Path, asked: str, dtype: str
) -> None:
    settings = load_settings(adapter_format=asked, cache_dir=tmp_path)
    found = [BaseModel.open(path, settings).engine_spec(settings).adapter_dtype for path in (plain, quantized)]
    assert found == [dtype, dtype]


# -- requests


@pytest.mark.parametrize(
    ("prompt_ids", "bias", "words"),
    [
        ([], {}, "no tokens"),
        ([2, 512], {}, "the prompt has token id 512, outside the vocabulary of 512 tokens"),
        ([2, -1], {}, "token id -1"),
        ([2], {512: 1.0}, "logit_bias has token id 512"),
        ([2], {-1: 1.0}, "logit_bias has token id -1"),
    ],
)
def test_ids_outside_the_vocabulary_are_refused(prompt_ids: list[int], bias: dict[int, float], words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        make_request(prompt_ids, SamplingParams(logit_bias=bias), (), 640, 512)


def test_the_last_id_of_the_vocabulary_is_accepted() -> None:
    request = make_request([2, 511], SamplingParams(logit_bias={511: -100.0}), [], 640, 512, Priority.BATCH)
    assert (request.prompt_ids, request.params.logit_bias) == ([2, 511], {511: -100.0})
    assert request.priority is Priority.BATCH
    assert request.params.seed is not None


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"logit_bias": {7: 100.5}}, "logit_bias of token 7 is 100.5, outside -100 to 100"),
        ({"logit_bias": {7: float("nan")}}, "nan"),
        ({"logit_bias": dict.fromkeys(range(MAX_LOGIT_BIAS + 1), 0.0)}, f"more than {MAX_LOGIT_BIAS}"),
        ({"logprobs": 21}, "logprobs is 21, outside 0 to 20"),
        ({"logprobs": -1}, "logprobs is -1"),
    ],
)
def test_values_out_of_bounds_are_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        SamplingParams(**asked)
