"""Tool calls in completions, and in the messages of a conversation.

The first characters of a completion decide: if it begins with `{` or `[{`, alone or in a fenced block of JSON, it
consists of calls and nothing else; otherwise it is plain text. The grammar enforces that, so streamed text is held back
for a few characters at most. `tools.py` describes the tools to the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from intaglio.errors import ChatError
from intaglio.grammar import schema_rule
from intaglio.text.tools import ToolCall, ToolUse, UnreadCall, json_text

# Fences that models were trained to put around a call. Only these count: a block of Python is plain text.
_FENCES = ("```json\n", "```tool_call\n", "```tool_code\n", "```\n")
_FENCE_END = "\n```"
_OPENINGS = tuple(fence + opening for fence in ("", *_FENCES) for opening in ("{", "[{"))

# A call has exactly one layout, because weak models tend to repeat spaces without end.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

# Any text that is not read as a call, with or without leading spaces.
_PLAIN_TEXT = r"/(.|\n)*/ & ~/[ \n\r\t]*(```(json|tool_call|tool_code)?[ \n\r\t]*)?(\[[ \n\r\t]*)?\{(.|\n)*/"


def tool_grammar(use: ToolUse, text_schema: Mapping[str, Any] | None = None) -> str:
    """A grammar, in llguidance's Lark, of the completions that `use` allows.

    text_schema   JSON schema of a completion that is not a call; None is any text. Unused if a call is required.

    `grammar.check_grammar` checks whether it can be served. Raises GrammarError for schemas nested too deeply.
    """
    rules = ["start: calls"]
    if not use.required:
        rules[0] += f" | FENCE calls {_literal(_FENCE_END)} | answer"
        rules.append(f"FENCE: {' | '.join(_literal(fence) for fence in _FENCES)}")
        if text_schema is None:
            rules += ["answer: TEXT", f"TEXT: {_PLAIN_TEXT}"]
        else:
            rules.append(f"answer: {_json_rule(text_schema)}")
    rules.append('calls: call | "[" call (", " call)* "]"' if use.parallel else "calls: call")
    for number, tool in enumerate(use.callable_tools):
        opening = " ".join(_literal(part) for part in _opening_parts(tool.name))
        rules.append(f'call_{number}: {opening} {_json_rule(tool.parameters)} "}}"')
    rules.append("call: " + " | ".join(f"call_{number}" for number in range(len(use.callable_tools))))
    return "\n".join(rules) + "\n"


def parse_tool_calls(text: str, use: ToolUse) -> list[ToolCall] | None:
    """The calls in a completion; None unless it consists of calls of these tools and nothing else."""
    if not begins_call(text):
        return None
    try:
        written = msgspec.json.decode(_unfenced(text))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    calls = [_read_call(item, use) for item in (written if isinstance(written, list) else [written])]
    return None if None in calls else [call for call in calls if call is not None]


def begins_call(text: str) -> bool:
    """Whether a completion that begins with this text is a call, complete or not."""
    return text.startswith(_OPENINGS)


class ToolCallBuffer:
    """Passes on the text of a completion as it arrives, but holds back what is or may become a call.

    held   the text that is held back; at the end it is empty or the whole completion
    """

    __slots__ = ("_is_text", "held")

    def __init__(self) -> None:
        self.held = ""
        self._is_text = False

    def push(self, text: str) -> str:
        """Add a piece; return the text that is certainly not part of a call."""
        if self._is_text:
            return text
        self.held += text
        if begins_call(self.held) or any(opening.startswith(self.held) for opening in _OPENINGS):
            return ""
        self._is_text = True
        released, self.held = self.held, ""
        return released


def _read_call(item: object, use: ToolUse) -> ToolCall | None:
    if not isinstance(item, dict) or item.keys() != {"name", "parameters"} or not isinstance(item["parameters"], dict):
        return None
    known = any(tool.name == item["name"] for tool in use.callable_tools)
    return ToolCall(item["name"], item["parameters"]) if known else None


def _opening_parts(name: str) -> tuple[str, ...]:
    """A call up to its arguments, cut into the same tokens as a JSON schema's own grammar: the lexer takes the longest
    match, so with other cuts the rules of two tools would exclude each other."""
    return "{", '"name"', ": ", json.dumps(name, ensure_ascii=False), ", ", '"parameters"', ": "


def _unfenced(text: str) -> str:
    fence = next((fence for fence in _FENCES if text.startswith(fence)), None)
    return text if fence is None else text.removeprefix(fence).removesuffix(_FENCE_END)


def _json_rule(schema: Mapping[str, Any]) -> str:
    return schema_rule(schema, _SPACING)


def _literal(text: str) -> str:
    return json.dumps(text)


# -- calls in messages


def read_message_calls(index: int, calls: object) -> list[tuple[str | None, ToolCall | UnreadCall]]:
    """The `tool_calls` of message `index`, each with its id if it has one.

    A call is `{name, arguments}` or OpenAI's `{id, type, function: {name, arguments}}`; arguments are an object or JSON
    text of one. Other arguments make an UnreadCall: a model wrote them, and the caller cannot mend them. Raises
    ChatError for what a model cannot have written.
    """
    if not isinstance(calls, list):
        raise ChatError(f"tool_calls of message {index} is not an array")
    return [_read_message_call(f"tool_calls[{number}] of message {index}", call) for number, call in enumerate(calls)]


def _read_message_call(where: str, call: object) -> tuple[str | None, ToolCall | UnreadCall]:
    if not isinstance(call, Mapping):
        raise ChatError(f"{where} is not an object")
    function = call.get("function", call)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ChatError(f"{where} has no name")
    call_id = call.get("id")
    return (call_id if isinstance(call_id, str) else None), _call(name, function.get("arguments"))


def _call(name: str, arguments: object) -> ToolCall | UnreadCall:
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return ToolCall(name, {})
    read = arguments
    if isinstance(arguments, str):
        try:
            read = msgspec.json.decode(arguments)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return UnreadCall(name, arguments)
    if isinstance(read, Mapping):
        return ToolCall(name, read)
    return UnreadCall(name, f"{arguments if isinstance(arguments, str) else json_text(arguments)}}}")
