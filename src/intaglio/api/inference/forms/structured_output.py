"""The form that a completion must have: text, JSON, or tool calls. Makes the grammar that enforces it from the
request's fields, and reads JSON or calls back from the completion.

Knows no route: the native and the OpenAI-compatible routes read the same fields, and differ in their responses.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from intaglio.errors import BadInputError, GrammarError, IncompleteJsonError
from intaglio.grammar import check_grammar, json_object_grammar, json_schema_grammar
from intaglio.request import FinishReason
from intaglio.text.tool_calls import begins_call, parse_tool_calls, tool_grammar
from intaglio.text.tools import ANY_ARGUMENTS, Tool, ToolCall, ToolUse
from intaglio.wording import shown

_SEARCH_S = 1.0  # for finding the schema that causes an error, among several
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
_WRAPPING_KEYS = frozenset({"name", "schema"})
# An object with one of these is a schema, even if it has a key of the wrapping too.
_BARE_SCHEMA_KEYS = frozenset({"type", "properties", "$ref", "allOf", "anyOf", "oneOf", "enum", "const", "items"})


@dataclass(frozen=True, slots=True)
class JsonMode:
    """The completion must be JSON.

    schema  None for any object
    field   the field that asked for JSON, for messages
    """

    schema: Mapping[str, Any] | None
    field: str


def read_json_mode(response_format: object, field: str = "response_format") -> JsonMode | None:
    """The JSON mode that the field asks for; None for plain text.

    field            the field's name, for messages
    response_format  `{type: "json_object"}`, `{type: "json_schema", json_schema: S}` where S is a schema or OpenAI's
                     `{name, schema, strict}`, or `{type: "text"}`; None if absent

    An empty or missing schema means any object, as some clients expect. Raises BadInputError.
    """
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "text":
        return None
    if kind not in ("json_object", "json_schema"):
        raise BadInputError(f"{field}.type is {shown(kind)}; json_object, json_schema or text is needed")
    assert isinstance(response_format, Mapping)  # it has a type
    given = response_format.get("json_schema") if kind == "json_schema" else None
    return JsonMode(_as_schema(_unwrapped(given), f"{field}/json_schema"), field)


def completion_grammar(json_mode: JsonMode | None, tools: ToolUse | None) -> str | None:
    """The grammar that the completion must match; None if any text is allowed.

    May take a second for a hostile schema: call it in a thread. Raises GrammarError naming the schema or tool, and the
    part of it that is not supported.
    """
    if json_mode is None and tools is None:
        return None
    if tools is None:
        return _json_grammar(json_mode)
    try:
        grammar = tool_grammar(tools, None if json_mode is None else (json_mode.schema or _ANY_OBJECT))
        check_grammar(grammar)
    except GrammarError:
        _raise_for_single_schema(tools, json_mode)
        raise
    return grammar


def grammar_and_notes(json_mode: JsonMode | None, tools: ToolUse | None) -> tuple[str | None, tuple[str, ...]]:
    """`completion_grammar`, and what the response should say of it.

    Where the model may choose whether to call a tool, one that is not strict and cannot be enforced does not refuse
    the request: its arguments may be any JSON object, and a note says so. Raises GrammarError otherwise.
    """
    try:
        return completion_grammar(json_mode, tools), ()
    except GrammarError:
        if tools is None or tools.required:
            raise
        loosened, notes = _loosened(tools)
        if not notes:
            raise
        return completion_grammar(json_mode, loosened), notes


def _loosened(tools: ToolUse) -> tuple[ToolUse, tuple[str, ...]]:
    """The tools, those that cannot be enforced and are not strict with any arguments, and a note for each."""
    began, notes = time.monotonic(), []
    found: list[Tool] = []
    for tool in tools.tools:
        kept = tool
        if not tool.strict and time.monotonic() - began <= _SEARCH_S:
            try:
                json_schema_grammar(tool.parameters)
            except GrammarError as error:
                kept = replace(tool, parameters=ANY_ARGUMENTS)
                notes.append(f"arguments of the tool {tool.name!r} are held to any JSON object: {error}")
        found.append(kept)
    return replace(tools, tools=tuple(found)), tuple(notes)


def parse_json_completion(text: str, end: FinishReason, max_tokens: int) -> Any:
    """The value of a completion in JSON mode. Raises IncompleteJsonError, which names max_tokens if that cut it off."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _incomplete("the completion", end, max_tokens, error) from error


def read_tool_calls(text: str, tools: ToolUse | None, end: FinishReason, max_tokens: int) -> list[ToolCall]:
    """The tool calls that make up the completion; empty if it is text, or JSON that was asked for.

    Raises IncompleteJsonError for a call that was cut off.
    """
    if tools is None or not (tools.required or begins_call(text)):
        return []
    calls = parse_tool_calls(text, tools)
    if calls is not None:
        return calls
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _incomplete("the tool call", end, max_tokens, error) from error
    return []


def _incomplete(what: str, end: FinishReason, max_tokens: int, error: Exception) -> IncompleteJsonError:
    if end is FinishReason.LENGTH:
        return IncompleteJsonError(f"max_tokens ({max_tokens}) cut {what} off before its JSON was complete")
    return IncompleteJsonError(f"{what} ended before its JSON was complete: {error}")


def _raise_for_single_schema(tools: ToolUse, json_mode: JsonMode | None) -> None:
    """Raise a GrammarError that names the schema at fault, if one of them fails alone and is found in _SEARCH_S."""
    _json_grammar(json_mode)
    began = time.monotonic()
    for tool in tools.callable_tools:
        if time.monotonic() - began > _SEARCH_S:
            return
        _named_grammar(f"parameters of the tool {tool.name!r}", tool.parameters)


def _json_grammar(mode: JsonMode | None) -> str:
    if mode is None or mode.schema is None:
        return json_object_grammar()
    return _named_grammar(mode.field, mode.schema)


def _named_grammar(what: str, schema: Mapping[str, Any]) -> str:
    """The schema's grammar. Raises GrammarError beginning with `what`."""
    try:
        return json_schema_grammar(schema)
    except GrammarError as error:
        raise GrammarError(f"{what}: {error}") from error


def _unwrapped(given: object) -> object:
    """The schema within OpenAI's `{name, schema, strict}`, None if it is missing there; any other value as it is."""
    if isinstance(given, Mapping) and _WRAPPING_KEYS & given.keys() and not _BARE_SCHEMA_KEYS & given.keys():
        return given.get("schema")
    return given


def _as_schema(given: object, field: str) -> Mapping[str, Any] | None:
    if given is None or given == {}:
        return None
    if not isinstance(given, Mapping):
        raise BadInputError(f"{field} must be a JSON schema, which is an object")
    return given
