"""The fields that are accepted and change no answer, each with the reason."""

from __future__ import annotations

from typing import Any

from intaglio.api.openai.fields.field import Field, Route, Treatment

_BOTH = frozenset(Route)
_TEXT: dict[str, Any] = {"type": "string"}
_FLAG: dict[str, Any] = {"type": "boolean"}
_COUNT: dict[str, Any] = {"type": "integer"}
_OBJECT: dict[str, Any] = {"type": "object"}


def _field(name: str, schema: dict[str, Any], note: str) -> Field:
    return Field(name, _BOTH, Treatment.HARMLESS, note, schema)


HARMLESS: tuple[Field, ...] = (
    _field("user", _TEXT, "a label of the caller's user; nothing is kept by it"),
    _field("safety_identifier", _TEXT, "a label of the caller's user; nothing is kept by it"),
    _field("metadata", _OBJECT, "labels of stored completions; this route stores none"),
    _field("prompt_cache_key", _TEXT, "prompts are always cached, by their tokens"),
    _field("prompt_cache_retention", _TEXT, "how long cached prompts stay is the server's decision"),
    _field("prompt_cache_options", _OBJECT, "how long cached prompts stay is the server's decision"),
    _field("prediction", _OBJECT, "it only makes OpenAI's models faster"),
    _field("session_id", _TEXT, "it routes requests between servers"),
    _field("guided_decoding_backend", _TEXT, "one program enforces every grammar here"),
    _field("spaces_between_special_tokens", _FLAG, "Gemma's tokenizers put no spaces between them"),
    _field("include_reasoning", _FLAG, "these models write no reasoning"),
    _field("thinking_token_budget", {"type": "integer", "minimum": -1}, "these models write no reasoning"),
    _field("separate_reasoning", _FLAG, "these models write no reasoning"),
    _field("reasoning_format", _TEXT, "these models write no reasoning"),
    _field("media_io_kwargs", _OBJECT, "it is about images and sound, which no message may have"),
    _field("mm_processor_kwargs", _OBJECT, "it is about images and sound, which no message may have"),
    _field("return_mm_kwargs", _FLAG, "it is about images and sound, which no message may have"),
    _field("stream_interval", {"type": "integer", "minimum": 1}, "a chunk is sent as soon as there is text"),
    _field("cache_prompt", _FLAG, "prompts are always cached, by their tokens"),
    _field("id_slot", _COUNT, "any sequence may run beside any other"),
)
