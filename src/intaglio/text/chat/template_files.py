"""Where a checkpoint keeps its chat template, and the names of its special tokens.

A Hugging Face folder, in the order of precedence that transformers has:

    chat_template.jinja, additional_chat_templates/NAME.jinja    one file each
    tokenizer_config.json, key chat_template                     a text, or a list of {"name", "template"}
    chat_template.json, key chat_template                        a text, beside the processor of a multimodal model

A GGUF file has `tokenizer.chat_template`, and named ones as `tokenizer.chat_template.NAME`. Of several templates the
one named "default" is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from intaglio.errors import ModelFormatError
from intaglio.files.json_object import read_json_object
from intaglio.files.lfs_pointer import LFS_ADVICE, is_lfs_pointer
from intaglio.files.regular_file import open_regular

MAX_TEMPLATE_BYTES = 1 << 20  # the longest published ones have 30,000
_MAX_CONFIG_BYTES = 64 << 20  # tokenizer_config.json lists thousands of tokens
_CONFIG, _PROCESSOR, _FILE = "tokenizer_config.json", "chat_template.json", "chat_template.jinja"
_FOLDER = "additional_chat_templates"
_GGUF_KEY = "tokenizer.chat_template"


class TemplateText(NamedTuple):
    """A template as found; label names its place."""

    text: str
    label: str


class TokenizerConfig(NamedTuple):
    """The chat template and special tokens in the files beside a tokenizer.

    template        None if there is none
    special_tokens  variables for the template, such as bos_token -> its text; only those that the files name
    """

    template: TemplateText | None
    special_tokens: dict[str, str]

    def completed(self, other: TokenizerConfig) -> TokenizerConfig:
        """This config, with the other's values where it has none."""
        return TokenizerConfig(self.template or other.template, other.special_tokens | self.special_tokens)


def read_tokenizer_config(path: Path, metadata: Mapping[str, Any] | None) -> TokenizerConfig:
    """The chat template and the special tokens of a checkpoint. Raises ModelFormatError naming the file.

    metadata  of a GGUF file; None for a Hugging Face folder, or another file, which has neither
    """
    if metadata is not None:
        return TokenizerConfig(_gguf_template(path, metadata), {})
    if not path.is_dir():
        return TokenizerConfig(None, {})
    config = _read_json(path / _CONFIG)
    return TokenizerConfig(_folder_template(path, config), _special_tokens(config))


def _folder_template(folder: Path, config: Mapping[str, Any]) -> TemplateText | None:
    files = {file.stem: _read_text(file) for file in sorted((folder / _FOLDER).glob("*.jinja"))}
    if (folder / _FILE).is_file():
        files["default"] = _read_text(folder / _FILE)
    if files:
        return TemplateText(_default(files, str(folder / _FOLDER)), str(folder / _FILE))
    for name, found in ((_CONFIG, config), (_PROCESSOR, _read_json(folder / _PROCESSOR))):
        label = f"{folder / name}: chat_template"
        template = _template_value(found.get("chat_template"), label)
        if template is not None:
            return TemplateText(template, label)
    return None


def _gguf_template(path: Path, metadata: Mapping[str, Any]) -> TemplateText | None:
    label = f"{path}: {_GGUF_KEY}"
    template = _template_value(metadata.get(_GGUF_KEY), label)
    if template is not None:
        return TemplateText(template, label)
    prefix = f"{_GGUF_KEY}."
    named = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    return TemplateText(_default(named, label), label) if named else None


def _template_value(value: object, label: str) -> str | None:
    """The template in a JSON value: a text, or named texts as a list or an object."""
    if value is None:
        return None
    if isinstance(value, dict):
        return _default(value, label)
    if isinstance(value, list):
        named = {}
        for entry in value:
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise ModelFormatError(f"{label} has an entry that is not an object of name and template")
            named[entry["name"]] = entry.get("template")
        return _default(named, label)
    return _checked(value, label)


def _default(named: Mapping[str, object], label: str) -> str:
    if "default" not in named:
        raise ModelFormatError(f"{label}: none of the templates ({', '.join(sorted(named))}) is named default")
    return _checked(named["default"], label)


def _checked(template: object, label: str) -> str:
    if not isinstance(template, str):
        raise ModelFormatError(f"{label} is a {type(template).__name__}; a text or a list of named texts is needed")
    if len(template) > MAX_TEMPLATE_BYTES:
        raise ModelFormatError(f"{label} has {len(template)} characters; at most {MAX_TEMPLATE_BYTES} are read")
    return template


def _read_text(file: Path) -> str:
    with open_regular(file, str(file), ModelFormatError) as opened:
        data = opened.read(MAX_TEMPLATE_BYTES + 1)
    if len(data) > MAX_TEMPLATE_BYTES:
        raise ModelFormatError(f"{file} has more than {MAX_TEMPLATE_BYTES} bytes")
    if is_lfs_pointer(data):
        raise ModelFormatError(f"{file}: {LFS_ADVICE}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"{file}: not UTF-8 at byte {error.start}") from error


def _read_json(file: Path) -> dict[str, Any]:
    return read_json_object(file, _MAX_CONFIG_BYTES, str(file), ModelFormatError) if file.is_file() else {}


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The `..._token` entries: texts, or objects with the text as `content`."""
    more = config.get("extra_special_tokens")
    entries = {**(more if isinstance(more, dict) else {}), **config}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in entries.items()}
    return {name: text for name, text in texts.items() if name.endswith("_token") and isinstance(text, str)}
