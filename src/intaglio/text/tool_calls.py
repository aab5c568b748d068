"""Calls in an answer: the grammar that makes the model write them well, and how they are told from plain text.

The first characters decide. An answer that begins with `{`, with `[{`, or with either in a fenced block of JSON, is a
call and nothing else; every other beginning is plain text. The grammar holds the model to that, so text that comes in
pieces has to be held back for a few characters at most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from intaglio.errors import GrammarError
from intaglio.text.tools import ToolCall, ToolUse

# How models were taught to fence a call. Only these are looked for: a block of Python is plain text.
_FENCES = ("```json\n", "```tool_call\n", "```tool_code\n", "```\n")
_FENCE_END = "\n```"
_OPENINGS = tuple(fence + opening for fence in ("", *_FENCES) for opening in ("{", "[{"))

# One way to write a call: weak models like to go on with spaces for ever.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

# Text of any kind that is not, whatever spaces it begins with, taken for a call.
_PLAIN_TEXT = r"/(.|\n)*/ & ~/[ \n\r\t]*(```(json|tool_call|tool_code)?[ \n\r\t]*)?(\[[ \n\r\t]*)?\{(.|\n)*/"


def tool_grammar(use: ToolUse, answer_schema: Mapping[str, Any] | None = None) -> str:
    """A grammar, in llguidance's Lark, of the answers that `use` allows.

    answer_schema   what an answer that is no call has to be; None is any text. Without effect where a call is required.

    Whether it can be served is for `intaglio.grammar` to say. Raises GrammarError for schemas too deep to be written.
    """
    rules = ["start: calls"]
    if not use.required:
        rules[0] += f" | FENCE calls {_literal(_FENCE_END)} | answer"
        rules.append(f"FENCE: {' | '.join(_literal(fence) for fence in _FENCES)}")
        if answer_schema is None:
            rules += ["answer: TEXT", f"TEXT: {_PLAIN_TEXT}"]
        else:
            rules.append(f"answer: {_json_rule(answer_schema)}")
    rules.append('calls: call | "[" call (", " call)* "]"' if use.parallel else "calls: call")
    for number, tool in enumerate(use.callable_tools):
        opening = " ".join(_literal(part) for part in _opening_parts(tool.name))
        rules.append(f'call_{number}: {opening} {_json_rule(tool.parameters)} "}}"')
    rules.append("call: " + " | ".join(f"call_{number}" for number in range(len(use.callable_tools))))
    return "\n".join(rules) + "\n"


def parse_tool_calls(text: str, use: ToolUse) -> list[ToolCall] | None:
    """The calls that an answer consists of; None if it is not wholly made of calls of these tools."""
    if not begins_call(text):
        return None
    try:
        written = msgspec.json.decode(_unfenced(text))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    calls = [_read_call(item, use) for item in (written if isinstance(written, list) else [written])]
    return None if None in calls else [call for call in calls if call is not None]


def begins_call(text: str) -> bool:
    """Whether an answer with this beginning is a call, complete or not."""
    return text.startswith(_OPENINGS)


class CallHold:
    """Gives an answer's text on as it comes, but for what is or may become a call.

    held   what was not given on; at the end, if there is any, the whole answer
    """

    __slots__ = ("_is_text", "held")

    def __init__(self) -> None:
        self.held = ""
        self._is_text = False

    def push(self, text: str) -> str:
        """Take a piece; return what is certainly plain text."""
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
    """A call up to its arguments, cut as a JSON schema's own grammar cuts it: else the two could not stand side by
    side, since of what fits at one place the longest piece is taken."""
    return "{", '"name"', ": ", json.dumps(name, ensure_ascii=False), ", ", '"parameters"', ": "


def _unfenced(text: str) -> str:
    fence = next((fence for fence in _FENCES if text.startswith(fence)), None)
    return text if fence is None else text.removeprefix(fence).removesuffix(_FENCE_END)


def _json_rule(schema: Mapping[str, Any]) -> str:
    try:
        return "%json " + json.dumps({**schema, "x-guidance": _SPACING})
    except RecursionError:
        raise GrammarError("a JSON schema is nested too deeply") from None


def _literal(text: str) -> str:
    return json.dumps(text)
