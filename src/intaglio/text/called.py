"""Calls that a model made in an earlier turn, as callers send them back with the conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from intaglio.errors import ChatError
from intaglio.text.tools import ToolCall


def read_calls(index: int, calls: object) -> list[tuple[str | None, ToolCall]]:
    """The `tool_calls` of message `index`, each with its id if it has one.

    A call is `{name, arguments}` or OpenAI's `{id, type, function: {name, arguments}}`; arguments are an object or one
    as JSON text. Raises ChatError.
    """
    if not isinstance(calls, list):
        raise ChatError(f"tool_calls of message {index} is not an array")
    return [_read_call(f"tool_calls[{number}] of message {index}", call) for number, call in enumerate(calls)]


def _read_call(where: str, call: object) -> tuple[str | None, ToolCall]:
    if not isinstance(call, Mapping):
        raise ChatError(f"{where} is not an object")
    made = call.get("function", call)
    name = made.get("name") if isinstance(made, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ChatError(f"{where} has no name")
    call_id = call.get("id")
    return (call_id if isinstance(call_id, str) else None), ToolCall(name, _arguments(where, made.get("arguments")))


def _arguments(where: str, arguments: object) -> Mapping[str, Any]:
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return {}
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ChatError(f"arguments of {where} are not JSON: {error}") from error
    if not isinstance(arguments, Mapping):
        raise ChatError(f"arguments of {where} are not a JSON object")
    return arguments
