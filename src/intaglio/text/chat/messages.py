"""The messages of a conversation, checked, as every chat format takes them.

Does not know how a format writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from intaglio.errors import ChatError
from intaglio.text.tool_calls import read_message_calls
from intaglio.text.tools import ToolCall, UnreadCall, call_text, json_text

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
_ROLES: tuple[Role, ...] = get_args(Role)
SEPARATOR = "\n\n"  # between texts that are joined into one message


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    parts      the texts of its content, unchanged; a string is one part
    is_string  whether the content was a string and not an array of parts
    calls      an assistant's tool calls, each with its id
    unread     the text of an assistant's tool calls if one of them cannot be read; then `calls` is empty
    call_id    of a tool's message: the id of the call
    tool       of a tool's message: the tool's name, if it is given there or with the call
    """

    role: Role
    parts: tuple[str, ...]
    is_string: bool
    calls: tuple[tuple[str, ToolCall], ...] = ()
    unread: str = ""
    call_id: str | None = None
    tool: str | None = None

    @property
    def text(self) -> str:
        """The content as one text, unchanged; parts become lines."""
        return "\n".join(self.parts)

    @property
    def calls_text(self) -> str:
        """The calls in the form that the model writes; empty if there are none."""
        return call_text([call for _, call in self.calls]) if self.calls else self.unread


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
    calls = _Calls()
    return [_read_message(index, message, calls) for index, message in enumerate(messages)]


def check_answers(messages: Sequence[Message]) -> None:
    """Raise ChatError if an answer to train with has tool calls that cannot be read."""
    for index, message in enumerate(messages):
        if message.unread:
            raise ChatError(
                f"the arguments of a tool call of message {index} are not a JSON object: {message.unread[:80]}"
            )


def check_continued(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raise ChatError unless the last message is one of the assistant, which a completion can continue. System messages
    may follow it, because every format puts them first.
    """
    last = next((role for message in reversed(messages) if (role := message.get("role")) != "system"), "system")
    if last != "assistant":
        raise ChatError(f"the last message has the role {last!r}; only one of the assistant can be continued")


def joined_system_text(messages: Sequence[Message]) -> str | None:
    """All system texts as one, untrimmed; None without a system message. Empty ones count only if there is no other."""
    texts = ["".join(message.parts) for message in messages if message.role == "system"]
    if not texts:
        return None
    return SEPARATOR.join(text for text in texts if text)


def result_text(message: Message, text: str) -> str:
    """The result of a tool as the user's text, for formats without tools."""
    return f"Result of {message.tool}:\n{text}" if message.tool else text


class _Calls:
    """The tool calls of a conversation so far, to find the one that a result belongs to."""

    def __init__(self) -> None:
        self._tools: dict[str, str] = {}  # id -> name of the tool
        self._open: list[str] = []  # ids of the latest message's calls without a result

    def add(self, found: Sequence[tuple[str | None, ToolCall | UnreadCall]]) -> list[str]:
        """Add the calls of a message. Returns their ids; a call without one gets the next number, as nine characters,
        which every template takes.
        """
        ids = [
            f"call{len(self._tools) + number:05}" if given is None else given for number, (given, _) in enumerate(found)
        ]
        self._tools |= {call_id: call.name for call_id, (_, call) in zip(ids, found, strict=True)}
        self._open = list(ids)
        return ids

    def of_result(self, call_id: str | None) -> tuple[str | None, str | None]:
        """Id and tool of the call that a result belongs to; without an id it is the first that has no result yet."""
        if call_id is None and self._open:
            call_id = self._open[0]
        if call_id in self._open:
            self._open.remove(call_id)
        return call_id, self._tools.get(str(call_id))


def _read_message(index: int, message: object, calls: _Calls) -> Message:
    """The message. Its tool calls are added to `calls`."""
    if not isinstance(message, Mapping):
        raise ChatError(f"message {index} is a {type(message).__name__}, not an object with role and content")
    role = message.get("role")
    if role not in _ROLES:
        raise ChatError(f"message {index} has the role {role!r}; allowed are {', '.join(_ROLES)}")
    content = message.get("content")
    parts, is_string = _content_parts(index, role, content), content is None or isinstance(content, str)
    if role == "assistant" and message.get("tool_calls"):
        return _with_calls(Message(role, parts, is_string), read_message_calls(index, message["tool_calls"]), calls)
    if role == "tool":
        given = message.get("tool_call_id")
        call_id, tool = calls.of_result(None if given is None else str(given))
        name = message.get("name") or tool
        return Message(role, parts, is_string, call_id=call_id, tool=str(name) if name else None)
    return Message(role, parts, is_string)


def _with_calls(message: Message, found: Sequence[tuple[str | None, ToolCall | UnreadCall]], calls: _Calls) -> Message:
    ids = calls.add(found)
    read = [(call_id, call) for call_id, (_, call) in zip(ids, found, strict=True) if isinstance(call, ToolCall)]
    if len(read) == len(found):
        return replace(message, calls=tuple(read))
    return replace(message, unread=call_text([call for _, call in found]))


def _content_parts(index: int, role: str, content: object) -> tuple[str, ...]:
    where = f"content of message {index} (role {role})"
    if isinstance(content, str):
        return (content,)
    if content is None and role in ("assistant", "tool"):  # a turn that only called tools, a tool without a result
        return ("",)
    if role == "tool" and not _is_of_parts(content):
        return (json_text(content),)
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise ChatError(f"{where} is {_describe(content)}; it must be a string or an array of text parts")
    return tuple(_part_text(where, number, part) for number, part in enumerate(content))


def _is_of_parts(content: object) -> bool:
    """Whether a tool's result is an array of parts, rather than JSON of its own."""
    return isinstance(content, list) and all(
        isinstance(part, Mapping) and part.get("type") == "text" for part in content
    )


def _part_text(where: str, number: int, part: object) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        shown = repr(part.get("type")) if isinstance(part, Mapping) else _describe(part)
        raise ChatError(f'part {number} of the {where} is {shown}; only {{"type": "text", "text": ...}} is served')
    return str(part["text"])


def _describe(value: object) -> str:
    return "missing or null" if value is None else f"a {type(value).__name__}"
