"""Messages to token ids in Gemma's turn format.

    <bos> <start_of_turn>user \\n text <end_of_turn> \\n <start_of_turn>model \\n ...

The prompt is built from ids: the template's parts are tokens by id, and the contents are encoded separately, as plain
text. So a user's text cannot leave the user's turn. The ids are the same as if the official template's text were
tokenized: contents are trimmed, and no piece joins a newline with a letter.

The template has no tools. A tool call is put into the model's turn in the form that the model writes, a tool's result
into the user's turn, after a line with the name of the tool.

Sources: the chat templates published with Gemma's instruction-tuned checkpoints, Gemma 3's for system texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from intaglio.errors import ChatError
from intaglio.text.tokenizer import Tokenizer
from intaglio.text.tool_calls import read_message_calls
from intaglio.text.tools import call_text

_ROLES = ("system", "user", "assistant", "tool")
_SEPARATOR = "\n\n"  # between texts that are joined into one turn


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn as the model sees it; the text is trimmed."""

    role: Literal["user", "model"]
    text: str


def render_chat(
    messages: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    *,
    strict: bool = False,
    add_generation_prompt: bool = True,
) -> list[int]:
    """The token ids of a conversation, with exactly one BOS, at the start.

    messages   each with `role` (system, user, assistant, tool) and `content`: a string, a list of
               `{"type": "text", "text": ...}`, or None for an assistant. An assistant's `tool_calls` are
               `{name, arguments}` or `{id, function: {name, arguments}}`; a tool's message may have the `name`
               of the tool or the `tool_call_id` of its call
    strict     True refuses, as the official template does, system messages and roles that do not alternate,
               beginning with user. False puts all system texts first, into the first user turn or a user turn of
               their own, and joins adjacent messages of one role, with a blank line between them. Either way
               a tool message counts as the user's.
    add_generation_prompt   end with the opening of the model's turn

    Raises ChatError, naming the message.
    """
    turns = fold_messages(messages, strict=strict)
    start, end = _turn_ids(tokenizer)
    newline = tokenizer.encode("\n")
    role_ids = {role: tokenizer.encode(role) for role in ("user", "model")}
    ids = [tokenizer.bos_id]
    for turn in turns:
        ids += [start, *role_ids[turn.role], *newline, *tokenizer.encode(turn.text), end, *newline]
    if add_generation_prompt:
        ids += [start, *role_ids["model"], *newline]
    return ids


def render_prompt(prompt: str, tokenizer: Tokenizer, raw: bool) -> list[int]:
    """The token ids of a bare prompt.

    raw True    the text unchanged, with control tokens recognised; exactly one BOS at the start, whether the text
                begins with none, one or more
    raw False   one user turn and the opening of the model's, as `render_chat` does it
    """
    if not raw:
        return render_chat([{"role": "user", "content": prompt}], tokenizer)
    ids = tokenizer.encode(prompt, special=True)
    first_other = next((i for i, token_id in enumerate(ids) if token_id != tokenizer.bos_id), len(ids))
    return [tokenizer.bos_id, *ids[first_other:]]


def fold_messages(messages: Sequence[Mapping[str, Any]], *, strict: bool = False) -> list[Turn]:
    """The turns that `render_chat` writes, as text. Raises ChatError."""
    if not messages:
        raise ChatError("messages is empty; it needs at least one message")
    tool_of_call: dict[str, str] = {}  # id of a call -> name of its tool
    read = [_read_message(index, message, tool_of_call) for index, message in enumerate(messages)]
    if strict:
        _check_roles([role for role, _ in read])
    system = _SEPARATOR.join(text for role, text in read if role == "system" and text)
    turns = [_to_turn(role, text) for role, text in read if role != "system"]
    if system or not turns:
        turns.insert(0, Turn("user", system))  # merged below with a user turn that follows
    return _merge_neighbours(turns)


def _to_turn(role: str, text: str) -> Turn:
    return Turn("model" if role == "assistant" else "user", text)


def _merge_neighbours(turns: Sequence[Turn]) -> list[Turn]:
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            both = (merged.pop().text, turn.text)
            merged.append(Turn(turn.role, _SEPARATOR.join(text for text in both if text)))
        else:
            merged.append(turn)
    return merged


def _read_message(index: int, message: object, tool_of_call: dict[str, str]) -> tuple[str, str]:
    """The message's role and trimmed text. Adds its tool calls to `tool_of_call`."""
    if not isinstance(message, Mapping):
        raise ChatError(f"message {index} is a {type(message).__name__}, not an object with role and content")
    role = message.get("role")
    if role not in _ROLES:
        raise ChatError(f"message {index} has the role {role!r}; allowed are {', '.join(_ROLES)}")
    text = _content_text(index, role, message.get("content")).strip()
    if role == "assistant" and message.get("tool_calls"):
        calls = read_message_calls(index, message["tool_calls"])
        tool_of_call |= {call_id: call.name for call_id, call in calls if call_id is not None}
        text = _SEPARATOR.join(part for part in (text, call_text([call for _, call in calls])) if part)
    elif role == "tool":
        name = message.get("name") or tool_of_call.get(str(message.get("tool_call_id")))
        text = f"Result of {name}:\n{text}" if name else text
    return role, text


def _content_text(index: int, role: str, content: object) -> str:
    where = f"content of message {index} (role {role})"
    if isinstance(content, str):
        return content
    if content is None and role == "assistant":  # a turn that only called tools
        return ""
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise ChatError(f"{where} is {_describe(content)}; it must be a string or an array of text parts")
    return "".join(_part_text(where, number, part) for number, part in enumerate(content))


def _part_text(where: str, number: int, part: object) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        shown = repr(part.get("type")) if isinstance(part, Mapping) else _describe(part)
        raise ChatError(f'part {number} of the {where} is {shown}; only {{"type": "text", "text": ...}} is served')
    return str(part["text"])


def _describe(value: object) -> str:
    return "missing or null" if value is None else f"a {type(value).__name__}"


def _check_roles(roles: Sequence[str]) -> None:
    """Raise ChatError unless the roles alternate, beginning with user."""
    for index, role in enumerate(roles):
        if role == "system":
            raise ChatError(f"System role not supported (message {index})")
        if (role == "assistant") != (index % 2 == 1):
            raise ChatError(
                f"Conversation roles must alternate user/assistant/user/assistant/..., but message {index} is {role}"
            )


def _turn_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    start, end = tokenizer.control_id("<start_of_turn>"), tokenizer.control_id("<end_of_turn>")
    if start is None or end is None:
        raise ChatError("this model's vocabulary has no turn tokens, so it takes prompts with raw: true only")
    return start, end
