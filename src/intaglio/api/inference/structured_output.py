"""What form an answer must have: plain text, JSON, or calls of tools. From the request's fields to the grammar that
holds the model to it, and back from the model's text to JSON.

Knows no route: the native and the OpenAI-compatible one read the same fields and differ in how they answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from intaglio.errors import BadInputError, GrammarError, IncompleteJsonError
from intaglio.grammar import check_grammar, json_object_grammar, json_schema_grammar
from intaglio.request import FinishReason
from intaglio.text.tool_calls import begins_call, parse_tool_calls, tool_grammar
from intaglio.text.tools import ToolCall, ToolUse

_BLAME_S = 1.0  # for finding out which of several schemas is at fault
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
# Keys that make a schema of what else would be the wrapping of one.
_WRAPPING_KEYS = frozenset({"name", "schema"})
_BARE_SCHEMA_KEYS = frozenset({"type", "properties", "$ref", "allOf", "anyOf", "oneOf", "enum", "const", "items"})


@dataclass(frozen=True, slots=True)
class JsonMode:
    """The answer is JSON. schema None: any object. `field` is where the caller said so, for messages."""

    schema: Mapping[str, Any] | None
    field: str


def read_json_mode(response_format: object, guided_json: object = None) -> JsonMode | None:
    """The two ways to ask for JSON, as one; None where plain text is asked for.

    response_format  `{type: "json_object"}`, `{type: "json_schema", json_schema: S}` where S is a schema or OpenAI's
                     `{name, schema, strict}`, or `{type: "text"}`; None is absent
    guided_json      a schema; None is absent

    An empty or missing schema asks for any object, as some clients mean by it. Raises BadInputError.
    """
    if guided_json is not None:
        if response_format is not None:
            raise BadInputError("'/response_format' and '/guided_json' both ask for JSON; only one of them may stand")
        return JsonMode(_as_schema(guided_json, "guided_json"), "guided_json")
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "text":
        return None
    if kind not in ("json_object", "json_schema"):
        raise BadInputError(f"'/response_format/type' is {kind!r}; it must be json_object, json_schema or text")
    assert isinstance(response_format, Mapping)  # it had a type
    given = response_format.get("json_schema") if kind == "json_schema" else None
    return JsonMode(_as_schema(_unwrapped(given), "response_format/json_schema"), "response_format")


def completion_grammar(json_mode: JsonMode | None, tools: ToolUse | None) -> str | None:
    """The grammar of the answers that are asked for; None where any text will do.

    May take a second for a hostile schema: call it in a thread. Raises GrammarError naming the schema or tool and what
    in it cannot be served.
    """
    if json_mode is None and tools is None:
        return None
    if tools is None:
        return _json_grammar(json_mode)
    try:
        grammar = tool_grammar(tools, None if json_mode is None else (json_mode.schema or _ANY_OBJECT))
        check_grammar(grammar)
    except GrammarError:
        _blame(tools, json_mode)
        raise
    return grammar


def parse_json_completion(text: str, end: FinishReason, max_tokens: int) -> Any:
    """The answer of a request in JSON mode. Raises IncompleteJsonError, which names max_tokens if that cut it short."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _unfinished("the answer", end, max_tokens, error) from error


def read_tool_calls(text: str, tools: ToolUse | None, end: FinishReason, max_tokens: int) -> list[ToolCall]:
    """The calls that the answer is made of; empty if it is a plain answer, or JSON that was asked for.

    Raises IncompleteJsonError for a call that has no end.
    """
    if tools is None or not (tools.required or begins_call(text)):
        return []
    calls = parse_tool_calls(text, tools)
    if calls is not None:
        return calls
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _unfinished("the tool call", end, max_tokens, error) from error
    return []


def _unfinished(what: str, end: FinishReason, max_tokens: int, error: Exception) -> IncompleteJsonError:
    if end is FinishReason.LENGTH:
        return IncompleteJsonError(f"max_tokens ({max_tokens}) cut {what} off before its JSON was complete")
    return IncompleteJsonError(f"{what} ended before its JSON was complete: {error}")


def _blame(tools: ToolUse, json_mode: JsonMode | None) -> None:
    """Raise a GrammarError that names the one schema which is at fault, if one alone is and it is soon found."""
    _json_grammar(json_mode)
    began = time.monotonic()
    for tool in tools.callable_tools:
        if time.monotonic() - began > _BLAME_S:
            return
        _named_grammar(f"parameters of the tool {tool.name!r}", tool.parameters)


def _json_grammar(mode: JsonMode | None) -> str:
    if mode is None or mode.schema is None:
        return json_object_grammar()
    return _named_grammar(f"'/{mode.field}'", mode.schema)


def _named_grammar(what: str, schema: Mapping[str, Any]) -> str:
    """The schema's grammar; a refusal says whose schema it was."""
    try:
        return json_schema_grammar(schema)
    except GrammarError as error:
        raise GrammarError(f"{what}: {error}") from error


def _unwrapped(given: object) -> object:
    """The schema in OpenAI's `{name, schema, strict}`, which may be missing; anything else as it is."""
    if isinstance(given, Mapping) and _WRAPPING_KEYS & given.keys() and not _BARE_SCHEMA_KEYS & given.keys():
        return given.get("schema")
    return given


def _as_schema(given: object, field: str) -> Mapping[str, Any] | None:
    if given is None or given == {}:
        return None
    if not isinstance(given, Mapping):
        raise BadInputError(f"'/{field}' must be a JSON schema, which is an object")
    return given
