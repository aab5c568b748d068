"""Where a chat template is found, which of several is taken, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import ModelFormatError
from intaglio.text.chat.template_files import MAX_TEMPLATE_BYTES, read_tokenizer_config

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 99\n"


def write(folder: Path, **files: Any) -> Path:
    """File names with __ for a slash and _ for a dot before the ending."""
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path = path.with_name(f"{path.name.rpartition('_')[0]}.{path.name.rpartition('_')[2]}")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def found(folder: Path) -> tuple[str, str] | None:
    template = read_tokenizer_config(folder, None).template
    return None if template is None else (template.text, template.label.replace(f"{folder}/", ""))


def test_a_folder_without_a_template_has_none(tmp_path: Path) -> None:
    assert found(tmp_path) is None
    assert found(write(tmp_path, tokenizer_config_json={"chat_template": None})) is None
    assert found(tmp_path / "tokenizer.json") is None


def test_the_template_comes_from_the_file_that_transformers_prefers(tmp_path: Path) -> None:
    write(tmp_path, chat_template_json={"chat_template": "processor"})
    assert found(tmp_path) == ("processor", "chat_template.json: chat_template")
    write(tmp_path, tokenizer_config_json={"chat_template": "config"})
    assert found(tmp_path) == ("config", "tokenizer_config.json: chat_template")
    write(tmp_path, chat_template_jinja="file é")
    assert found(tmp_path) == ("file é", "chat_template.jinja")
    write(tmp_path, additional_chat_templates__rag_jinja="rag")
    assert found(tmp_path) == ("file é", "chat_template.jinja")


@pytest.mark.parametrize(
    "named",
    [[{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], {"tool_use": "t", "default": "d"}],
)
def test_of_named_templates_the_default_is_taken(tmp_path: Path, named: Any) -> None:
    assert found(write(tmp_path, tokenizer_config_json={"chat_template": named}))[0] == "d"  # type: ignore[index]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tokenizer_config_json": {"chat_template": [{"name": "rag", "template": "r"}]}},
         r"tokenizer_config\.json: chat_template: none of the templates \(rag\) is named default"),
        ({"tokenizer_config_json": {"chat_template": []}}, "none of the templates"),
        ({"tokenizer_config_json": {"chat_template": ["r"]}}, "an entry that is not an object of name and template"),
        ({"tokenizer_config_json": {"chat_template": [{"name": "default"}]}}, "is a NoneType; a text or a list"),
        ({"tokenizer_config_json": {"chat_template": 7}}, r"tokenizer_config\.json: chat_template is a int"),
        ({"tokenizer_config_json": {"chat_template": "x" * (10 << 20)}}, f"at most {MAX_TEMPLATE_BYTES} are read"),
        ({"tokenizer_config_json": "{"}, r"tokenizer_config\.json is not valid JSON"),
        ({"tokenizer_config_json": POINTER}, "git lfs pull"),
        ({"chat_template_json": "[]"}, r"chat_template\.json is \[\]; a JSON object is needed"),
        ({"chat_template_jinja": "x" * (10 << 20)}, r"chat_template\.jinja has more than"),
        ({"chat_template_jinja": POINTER}, r"chat_template\.jinja: .*git lfs pull"),
        ({"additional_chat_templates__rag_jinja": "r"}, r"additional_chat_templates: none of the templates \(rag\)"),
    ],
)  # fmt: skip
def test_what_is_no_template_is_refused_by_file_and_key(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFormatError, match=words):
        read_tokenizer_config(write(tmp_path, **files), None)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"a\xff")
    with pytest.raises(ModelFormatError, match=r"chat_template\.jinja: not UTF-8 at byte 1"):
        read_tokenizer_config(tmp_path, None)


def test_special_tokens_are_texts_or_objects_with_a_content(tmp_path: Path) -> None:
    config = {
        "bos_token": "<bos>",
        "eos_token": {"content": "<|im_end|>", "special": True},
        "add_bos_token": True,
        "pad_token": None,
        "tokenizer_class": "GemmaTokenizer",
        "extra_special_tokens": {"image_token": "<image>"},
    }
    tokens = read_tokenizer_config(write(tmp_path, tokenizer_config_json=config), None).special_tokens
    assert tokens == {"bos_token": "<bos>", "eos_token": "<|im_end|>", "image_token": "<image>"}


def test_a_gguf_file_has_it_in_its_metadata() -> None:
    path, key = Path("m.gguf"), "tokenizer.chat_template"
    assert read_tokenizer_config(path, {"general.name": "x", "tokenizer.ggml.tokens": []}).template is None
    assert read_tokenizer_config(path, {key: "a", f"{key}.rag": "r"}).template == ("a", f"m.gguf: {key}")
    assert read_tokenizer_config(path, {f"{key}.default": "d", f"{key}.rag": "r"}).template == ("d", f"m.gguf: {key}")
    with pytest.raises(ModelFormatError, match=r"m\.gguf: tokenizer\.chat_template: none of the templates \(rag\)"):
        read_tokenizer_config(path, {f"{key}.rag": "r"})
    with pytest.raises(ModelFormatError, match="is a int"):
        read_tokenizer_config(path, {key: 7})
