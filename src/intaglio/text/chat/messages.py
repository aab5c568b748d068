"""The messages of a conversation, checked, as every chat format takes them.

Does not know how a format writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from intaglio.errors import ChatError
from intaglio.text.tool_calls import read_message_calls
from intaglio.text.tools import ToolCall, call_text

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
_ROLES: tuple[Role, ...] = get_args(Role)
SEPARATOR = "\n\n"  # between texts that are joined into one message


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    parts      the texts of its content, unchanged; a string is one part
    is_string  whether the content was a string and not an array of parts
    calls      an assistant's tool calls, each with its id if it has one
    call_id    of a tool's message: the id of the call
    tool       of a tool's message: the tool's name, if it is given there or with the call
    """

    role: Role
    parts: tuple[str, ...]
    is_string: bool
    calls: tuple[tuple[str | None, ToolCall], ...] = ()
    call_id: str | None = None
    tool: str | None = None

    @property
    def text(self) -> str:
        """The content as one text, unchanged; parts become lines."""
        return "\n".join(self.parts)

    @property
    def calls_text(self) -> str:
        """The calls in the form that the model writes; empty if there are none."""
        return call_text([call for _, call in self.calls]) if self.calls else ""


class AnsweredChat(NamedTuple):
    """A conversation to train with, as token ids.

    answers  [start, stop) of each answer of the assistant: what the model has to write after a request's ids
    """

    ids: list[int]
    answers: tuple[tuple[int, int], ...]


def said(role: Role, text: str) -> Message:
    """A message of one text."""
    return Message(role, (text,), is_string=True)


def read_messages(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Check messages, whose fields `render_chat` describes. Raises ChatError, naming the message."""
    if not messages:
        raise ChatError("messages is empty; it needs at least one message")
    tool_of_call: dict[str, str] = {}  # id of a call -> name of its tool
    return [_read_message(index, message, tool_of_call) for index, message in enumerate(messages)]


def joined_system_text(messages: Sequence[Message]) -> str | None:
    """All system texts as one, untrimmed; None without a system message. Empty ones count only if there is no other."""
    texts = ["".join(message.parts) for message in messages if message.role == "system"]
    if not texts:
        return None
    return SEPARATOR.join(text for text in texts if text)


def result_text(message: Message, text: str) -> str:
    """The result of a tool as the user's text, for formats without tools."""
    return f"Result of {message.tool}:\n{text}" if message.tool else text


def _read_message(index: int, message: object, tool_of_call: dict[str, str]) -> Message:
    """The message. Adds its tool calls to `tool_of_call`."""
    if not isinstance(message, Mapping):
        raise ChatError(f"message {index} is a {type(message).__name__}, not an object with role and content")
    role = message.get("role")
    if role not in _ROLES:
        raise ChatError(f"message {index} has the role {role!r}; allowed are {', '.join(_ROLES)}")
    content = message.get("content")
    parts, is_string = _content_parts(index, role, content), content is None or isinstance(content, str)
    if role == "assistant" and message.get("tool_calls"):
        calls = tuple(read_message_calls(index, message["tool_calls"]))
        tool_of_call |= {call_id: call.name for call_id, call in calls if call_id is not None}
        return Message(role, parts, is_string, calls)
    if role == "tool":
        name, call_id = message.get("name"), message.get("tool_call_id")
        name = name or tool_of_call.get(str(call_id))
        return Message(
            role, parts, is_string, call_id=None if call_id is None else str(call_id), tool=str(name) if name else None
        )
    return Message(role, parts, is_string)


def _content_parts(index: int, role: str, content: object) -> tuple[str, ...]:
    where = f"content of message {index} (role {role})"
    if isinstance(content, str):
        return (content,)
    if content is None and role == "assistant":  # a turn that only called tools
        return ("",)
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise ChatError(f"{where} is {_describe(content)}; it must be a string or an array of text parts")
    return tuple(_part_text(where, number, part) for number, part in enumerate(content))


def _part_text(where: str, number: int, part: object) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        shown = repr(part.get("type")) if isinstance(part, Mapping) else _describe(part)
        raise ChatError(f'part {number} of the {where} is {shown}; only {{"type": "text", "text": ...}} is served')
    return str(part["text"])


def _describe(value: object) -> str:
    return "missing or null" if value is None else f"a {type(value).__name__}"
