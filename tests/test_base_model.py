"""What the settings and the checkpoint make of a base model's engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from intaglio.base_model import BaseModel, make_request
from intaglio.errors import BadInputError, ModelFormatError
from intaglio.model.packing.pack import pack
from intaglio.request import MAX_LOGIT_BIAS, Priority, SamplingParams
from intaglio.settings import load_settings
from intaglio.text import render_chat
from tests.helpers.chat_templates import CHATML, GEMMA1, GEMMA3, system, user
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


# -- chat format


def test_a_folder_without_a_template_is_served_in_gemmas_turn_format(plain: Path, tmp_path: Path) -> None:
    base = BaseModel.open(plain, load_settings(cache_dir=tmp_path))
    assert base.render_prompt("Hi", raw=False) == render_chat([user("Hi")], base.tokenizer)
    assert base.render_messages([system(" A"), user("Hi")]) == render_chat([system(" A"), user("Hi")], base.tokenizer)


def test_a_folder_with_a_template_of_its_own_is_served_with_it(plain: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plain, tmp_path / "model")
    config = {"chat_template": CHATML.replace("<end_of_turn>", "<unused0>"), "eos_token": "<unused0>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    base = BaseModel.open(folder, load_settings(cache_dir=tmp_path))
    text = "<start_of_turn>user\n Hi<unused0>\n<start_of_turn>assistant\n"
    expected = base.tokenizer.encode(text, special=True, add_bos=True)
    assert base.render_prompt(" Hi", raw=False) == base.render_messages([user(" Hi")]) == expected
    assert base.render_prompt("Hi", raw=True) == base.tokenizer.encode("Hi", add_bos=True)
    assert base.tokenizer.stop_ids == {1, 8, 5}  # <eos>, <end_of_turn> and the eos_token


def test_a_gguf_file_with_a_template_of_its_own_is_served_with_it(tmp_path: Path) -> None:
    config = tiny_config("gemma3_text", vocab_size=512)
    path = write_gguf(tmp_path / "model.gguf", config, random_weights(config, 1), chat_template=CHATML)
    base = BaseModel.open(path, load_settings(cache_dir=tmp_path))
    text = "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>assistant\n"
    assert base.render_messages([user("Hi")]) == base.tokenizer.encode(text, special=True, add_bos=True)


@pytest.mark.parametrize("template", [GEMMA1, GEMMA3], ids=["Gemma 1 and 2", "Gemma 3"])
def test_gemmas_own_template_is_the_turn_format_and_takes_system_messages(
    plain: Path, tmp_path: Path, template: str
) -> None:
    folder = shutil.copytree(plain, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    base = BaseModel.open(folder, load_settings(cache_dir=tmp_path))
    messages = [system(" A"), user("Hi"), user("there")]
    assert base.render_messages(messages) == render_chat(messages, base.tokenizer)


def test_a_template_in_a_borrowed_tokenizers_folder_counts_unless_the_model_has_one(
    plain: Path, tmp_path: Path
) -> None:
    folder, lender = shutil.copytree(plain, tmp_path / "model"), shutil.copytree(plain, tmp_path / "lender")
    (folder / "tokenizer.json").unlink()
    (lender / "chat_template.jinja").write_text(CHATML)
    settings = load_settings(cache_dir=tmp_path, tokenizer=str(lender))
    rendered = BaseModel.open(folder, settings).render_messages([user("Hi")])
    assert rendered == BaseModel.open(lender, load_settings(cache_dir=tmp_path)).render_messages([user("Hi")])
    (folder / "chat_template.jinja").write_text(GEMMA3)
    base = BaseModel.open(folder, settings)
    assert base.render_messages([user("Hi")]) == render_chat([user("Hi")], base.tokenizer) != rendered


def test_a_template_in_a_borrowed_gguf_file_counts_too(plain: Path, tmp_path: Path) -> None:
    folder, config = shutil.copytree(plain, tmp_path / "model"), tiny_config("gemma", vocab_size=512)
    (folder / "tokenizer.json").unlink()
    lender = write_gguf(tmp_path / "lender.gguf", config, random_weights(config, 1), chat_template=CHATML)
    base = BaseModel.open(folder, load_settings(cache_dir=tmp_path, tokenizer=str(lender)))
    text = "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>assistant\n"
    assert base.render_messages([user("Hi")]) == base.tokenizer.encode(text, special=True, add_bos=True)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for", r"model/chat_template\.jinja, line 1: not a chat template"),
        ("{{ messages | length }}", r"model/chat_template\.jinja: .* leaves out the user's text"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_at_the_start(
    plain: Path, tmp_path: Path, template: str, words: str
) -> None:
    folder = shutil.copytree(plain, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelFormatError, match=words):
        BaseModel.open(folder, load_settings(cache_dir=tmp_path))


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


def test_a_packed_file_lends_its_tokenizer(tmp_path: Path) -> None:
    config = tiny_config("gemma", vocab_size=512, hidden_size=64)
    folder = write_hf_folder(tmp_path / "model", config, random_weights(config, 1))
    write_tokenizer_json(folder / "tokenizer.json", tiny_pieces(512))
    pack(folder, tmp_path / "lender", "w8")
    own = BaseModel.open(folder, load_settings(cache_dir=tmp_path / "cache")).tokenizer
    (folder / "tokenizer.json").unlink()
    settings = load_settings(cache_dir=tmp_path / "cache", tokenizer="other", model=[f"other={tmp_path / 'lender'}"])
    assert BaseModel.open(folder, settings).tokenizer.digest == own.digest
