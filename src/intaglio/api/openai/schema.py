"""The JSON schemas of the OpenAI-compatible routes' bodies, checked in the words of the native route.

Null means absent, as OpenAI's own API has it. Keys that no schema names are let through, but for those that would
change the answer and that this server does not do: they are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jsonschema_rs

from intaglio.api.inference.lora_field import LORA_SCHEMA, with_lora
from intaglio.api.inference.schema import CONTENT_BY_ROLE, STOP, first_violation, json_type
from intaglio.errors import BadInputError
from intaglio.request import MAX_LOGPROBS

MAX_CHOICES = 128  # sequences of one request: prompts times n

_COUNT = {"type": "integer", "minimum": 0}
_FLAG = {"type": "boolean"}
_TOKEN_IDS = {"type": "integer", "minimum": 0}

_SHARED: dict[str, Any] = {
    "model": {"type": "string", "minLength": 1},
    "lora": LORA_SCHEMA,
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "temperature": {"type": "number", "minimum": 0, "maximum": 5},
    "top_p": {"type": "number", "minimum": 0, "maximum": 2},
    "top_k": {"type": "integer", "minimum": 1},
    "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "repetition_penalty": {"type": "number", "minimum": 0, "maximum": 2},
    "logit_bias": {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
    "stop": STOP,
    "n": {"type": "integer", "minimum": 1, "maximum": MAX_CHOICES},
    "stream": _FLAG,
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": ["boolean", "null"]}}},
    "prompt_logprobs": {"type": "integer", "minimum": 0, "maximum": MAX_LOGPROBS},
    "response_format": {"type": "object"},
    "guided_json": {"type": "object"},
}  # fmt: skip

MESSAGES: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {"role": {"type": "string"}},
        **CONTENT_BY_ROLE,
        "required": ["role"],
    },
}

CHAT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        **_SHARED,
        "messages": MESSAGES,
        "logprobs": _FLAG,
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": MAX_LOGPROBS},
        "tools": {"type": "array", "items": {"type": "object"}},
        "tool_choice": {"type": ["string", "object"]},
        "parallel_tool_calls": _FLAG,
        "modalities": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["model", "messages"],
}

COMPLETIONS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        **_SHARED,
        "prompt": {
            "type": ["string", "array"],
            "minLength": 1,
            "minItems": 1,
            "items": {"type": ["string", "integer", "array"], "minLength": 1, "minItems": 1, "minimum": 0,
                      "items": _TOKEN_IDS},
        },
        "best_of": {"type": "integer", "minimum": 1},
        "echo": _FLAG,
        "logprobs": {"type": "integer", "minimum": 0, "maximum": MAX_LOGPROBS},
        "suffix": {"type": "string"},
    },
    "required": ["model", "prompt"],
}  # fmt: skip

# What these would change in the answer does not happen here; every other key of OpenAI's leaves the text as it is.
_COMPLETIONS_REFUSED = MappingProxyType(
    dict.fromkeys(("tools", "functions", "tool_choice"), "tools are for chat/completions")
)
_CHAT_REFUSED = MappingProxyType({
    "audio": "this server answers in text",
    "web_search_options": "this server does not search the web",
    "functions": "send them as 'tools'",
    "function_call": "send it as 'tool_choice'",
})  # fmt: skip


class BodyCheck:
    """One body's schema and its checker. refused: key -> why; such a key may be null or an empty list."""

    def __init__(self, schema: dict[str, Any], refused: Mapping[str, str] = MappingProxyType({})) -> None:
        self.schema = schema
        self.refused = refused
        self._validator = jsonschema_rs.Draft202012Validator(schema)

    def read(self, body: object, query: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
        """The body without its nulls, with the adapters that `options` or the query name.

        Raises BadInputError naming the field and its bound.
        """
        if not isinstance(body, dict):
            raise BadInputError(f"Type mismatch of '/', 'object' not in '{json_type(body)}'")
        given = with_lora({name: value for name, value in body.items() if value is not None}, query)
        for name, reason in self.refused.items():
            if given.get(name, []) != []:  # an empty list asks for nothing
                raise BadInputError(f"'/{name}' is not supported: {reason}")
        fault = first_violation(self._validator, self.schema, given)
        if fault is not None:
            raise BadInputError(fault)
        return given


def chat_check() -> BodyCheck:
    """The check for chat completions."""
    return BodyCheck(CHAT_SCHEMA, _CHAT_REFUSED)


def completions_check() -> BodyCheck:
    """The check for completions."""
    return BodyCheck(COMPLETIONS_SCHEMA, _COMPLETIONS_REFUSED)
