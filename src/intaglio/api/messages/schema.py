"""The JSON schema of a Messages body. A field that is not in it is refused by name, as Anthropic's API does."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from intaglio.api.inference.lora_field import LORA_SCHEMA
from intaglio.api.inference.schema import STOP
from intaglio.api.openai.fields import Route, fields_of
from intaglio.api.openai.schema import CHAT_SCHEMA, BodyCheck

_CHAT_FIELDS: dict[str, Any] = CHAT_SCHEMA["properties"]
_BLOCKS = {
    "type": ["string", "array"],
    "items": {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]},
}
_TEXT_BLOCKS = {
    "type": ["string", "array"],
    "items": {
        "type": "object",
        "properties": {"type": {"enum": ["text"]}, "text": {"type": "string"}},
        "required": ["type", "text"],
    },
}
_FORMAT = {
    "type": "object",
    "properties": {"type": {"enum": ["json_schema"]}, "schema": {"type": "object"}},
    "required": ["type", "schema"],
}

_PROMPT_FIELDS: dict[str, Any] = {
    "model": {"type": "string", "minLength": 1},
    "messages": {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "properties": {"role": {"type": "string", "enum": ["user", "assistant"]}, "content": _BLOCKS},
            "required": ["role", "content"],
        },
    },
    "system": _TEXT_BLOCKS,
    "tools": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "type": {"enum": ["custom", None]},
                "name": {"type": "string", "minLength": 1},
                "description": {"type": ["string", "null"]},
                "input_schema": {"type": "object", "properties": {"type": {"enum": ["object"]}}},
                "strict": {"type": ["boolean", "null"]},
            },
            "required": ["name", "input_schema"],
        },
    },
    "tool_choice": {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": ["auto", "any", "tool", "none"]},
            "name": {"type": "string"},
            "disable_parallel_tool_use": {"type": ["boolean", "null"]},
        },
        "required": ["type"],
    },
    "thinking": {"type": "object", "properties": {"type": {"enum": ["disabled"]}}, "required": ["type"]},
    "output_config": {"type": "object", "properties": {"format": _FORMAT}, "additionalProperties": False},
    "output_format": _FORMAT,
    "cache_control": {"type": "object", "description": "without effect: prompts are always cached"},
    "lora": LORA_SCHEMA,
    "options": {"type": "object"},
}

MESSAGES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        **_PROMPT_FIELDS,
        "max_tokens": {"type": "integer", "minimum": 1},
        "stop_sequences": {"type": "array", "items": STOP["items"], "maxItems": STOP["maxItems"]},
        **{name: _CHAT_FIELDS[name] for name in ("stream", "temperature", "top_p", "top_k", "seed")},
        "metadata": {"type": "object", "description": "without effect"},
        "service_tier": {"type": "string", "enum": ["auto", "standard_only"], "description": "without effect"},
    },
    "required": ["model", "max_tokens", "messages"],
    "additionalProperties": False,
}

COUNT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": _PROMPT_FIELDS,
    "required": ["model", "messages"],
    "additionalProperties": False,
}


_REFUSED = MappingProxyType({
    "stop": "send it as 'stop_sequences'",
    "max_completion_tokens": "send it as 'max_tokens'",
    "response_format": "send it as 'output_config.format'",
    "parallel_tool_calls": "send 'tool_choice.disable_parallel_tool_use'",
})  # fmt: skip


def messages_check() -> BodyCheck:
    """The check for a message."""
    return BodyCheck(MESSAGES_SCHEMA, _REFUSED, others=fields_of(Route.CHAT))


def count_check() -> BodyCheck:
    """The check for a count of tokens."""
    return BodyCheck(COUNT_SCHEMA)
