"""Messages to token ids in Gemma's turn format.

    <bos> <start_of_turn>user \\n text <end_of_turn> \\n <start_of_turn>model \\n ...

The ids are those of the text of the official templates, with one intended exception: a message's text is encoded as
plain text, so control tokens written in it stay text and cannot end its turn.

The templates of Gemma 1, 2 and 3 write the same turns: contents are trimmed, system texts are not. They differ in what
they refuse: Gemma 1 and 2 a system message, which Gemma 3 puts in front of the first user content. Contents in parts
are known to Gemma 3's only: each part is trimmed, and nothing stands between them. By default all of them are rendered
as Gemma 3 does it.

The templates have no tools. A tool call is put into the model's turn in the form that the model writes, a tool's result
into the user's turn, after a line with the name of the tool.

Sources: the chat templates published with Gemma's instruction-tuned checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from intaglio.errors import ChatError
from intaglio.text.chat.messages import (
    SEPARATOR,
    AnsweredChat,
    Message,
    check_answers,
    check_continued,
    joined_system_text,
    read_messages,
    result_text,
)
from intaglio.text.tokenizer import Tokenizer

# The turns as a template, for clients that render a chat themselves. Roles have to alternate, after a system message.
GEMMA_TEMPLATE = """\
{{- bos_token -}}
{%- set system = (messages[0].content ~ "\\n\\n") if messages and messages[0].role == "system" else "" -%}
{%- for message in messages if message.role != "system" -%}
    {{- "<start_of_turn>" ~ ("model" if message.role == "assistant" else message.role) ~ "\\n" -}}
    {{- (system if loop.first else "") ~ (message.content | trim) ~ "<end_of_turn>\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<start_of_turn>model\\n" -}}{%- endif -%}
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn as the model sees it. The text is trimmed, except for a system text at its beginning."""

    role: Literal["user", "model"]
    text: str


class GemmaFormat:
    """The turn format with the tokenizer of one model. takes_system: as for `render_chat`."""

    def __init__(self, tokenizer: Tokenizer, *, takes_system: bool = True) -> None:
        self.takes_system = takes_system
        self._tokenizer = tokenizer

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
    ) -> list[int]:
        """As `render_chat`, not strict. Raises ChatError."""
        turns = fold_messages(messages)
        if not continue_final:
            return render_turns(turns, self._tokenizer, add_generation_prompt=add_generation_prompt)
        check_continued(messages)
        before = render_turns(turns[:-1], self._tokenizer, add_generation_prompt=False)
        return [*before, *_open_turn(turns[-1], self._tokenizer)]

    def answered(self, messages: Sequence[Mapping[str, Any]]) -> AnsweredChat:
        """A conversation to train with: an answer is a text of the model and `<end_of_turn>`. Raises ChatError."""
        read = read_messages(messages)
        check_answers(read)
        turns = _fold(read)
        ids: list[int] = []
        answers: list[tuple[int, int]] = []
        for index, turn in enumerate(turns):
            if turn.role == "user":
                continue
            ids = render_turns(turns[:index], self._tokenizer)
            start = len(ids)
            ids += [*self._tokenizer.encode(turn.text), _turn_ids(self._tokenizer)[1]]
            answers.append((start, len(ids)))
        return AnsweredChat(ids, tuple(answers))


def render_chat(
    messages: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    *,
    strict: bool = False,
    takes_system: bool = True,
    add_generation_prompt: bool = True,
) -> list[int]:
    """The token ids of a conversation, with exactly one BOS, at the start.

    messages   each with `role` (system, user, assistant, tool) and `content`: a string, a list of
               `{"type": "text", "text": ...}`, or None for an assistant. An assistant's `tool_calls` are
               `{name, arguments}` or `{id, function: {name, arguments}}`; a tool's message may have the `name`
               of the tool or the `tool_call_id` of its call
    strict     True refuses, as the official templates do, roles that do not alternate, beginning with user, and a
               system message anywhere but at the start. False puts all system texts first, into the first user turn or
               a user turn of their own, and joins adjacent messages of one role, with a blank line between them.
               Either way a tool message counts as the user's, and a system text in several parts is used whole, where
               Gemma 3's template takes the first part
    takes_system   False is the template of Gemma 1 and 2, which refuses system messages if strict; True is Gemma 3's
    add_generation_prompt   end with the opening of the model's turn

    Raises ChatError, naming the message.
    """
    turns = fold_messages(messages, strict=strict, takes_system=takes_system)
    return render_turns(turns, tokenizer, add_generation_prompt=add_generation_prompt)


def render_turns(turns: Sequence[Turn], tokenizer: Tokenizer, *, add_generation_prompt: bool = True) -> list[int]:
    """The token ids of turns. Raises ChatError if the vocabulary has no turn tokens."""
    _, end = _turn_ids(tokenizer)
    newline = tokenizer.encode("\n")
    ids = [tokenizer.bos_id]
    for turn in turns:
        ids += [*_open_turn(turn, tokenizer), end, *newline]
    if add_generation_prompt:
        ids += _open_turn(Turn("model", ""), tokenizer)
    return ids


def _open_turn(turn: Turn, tokenizer: Tokenizer) -> list[int]:
    """The ids of a turn without its end."""
    # Encoded together: a run of newlines is one token, and a system text may begin with newlines.
    return [_turn_ids(tokenizer)[0], *tokenizer.encode(f"{turn.role}\n{turn.text}")]


def turns_text(turns: Sequence[Turn], *, add_generation_prompt: bool = True) -> str:
    """What the official templates write for these turns, after BOS."""
    text = "".join(f"<start_of_turn>{turn.role}\n{turn.text}<end_of_turn>\n" for turn in turns)
    return text + ("<start_of_turn>model\n" if add_generation_prompt else "")


def fold_messages(
    messages: Sequence[Mapping[str, Any]], *, strict: bool = False, takes_system: bool = True
) -> list[Turn]:
    """The turns that `render_chat` writes, as text. Raises ChatError."""
    read = read_messages(messages)
    if strict:
        _check_roles([message.role for message in read], takes_system)
    return _fold(read)


def _fold(read: Sequence[Message]) -> list[Turn]:
    system = joined_system_text(read)
    turns = _merge_neighbours([_to_turn(message) for message in read if message.role != "system"])
    if system is None:
        return turns
    if turns and turns[0].role == "user":
        return [Turn("user", f"{system}{SEPARATOR}{turns[0].text}"), *turns[1:]]
    return [Turn("user", system), *turns]


def _to_turn(message: Message) -> Turn:
    text = "".join(part.strip() for part in message.parts)
    if message.role == "assistant":
        return Turn("model", _join(text, message.calls_text))
    return Turn("user", result_text(message, text) if message.role == "tool" else text)


def _merge_neighbours(turns: Sequence[Turn]) -> list[Turn]:
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            merged.append(Turn(turn.role, _join(merged.pop().text, turn.text)))
        else:
            merged.append(turn)
    return merged


def _join(*texts: str) -> str:
    return SEPARATOR.join(text for text in texts if text)


def _check_roles(roles: Sequence[str], takes_system: bool) -> None:
    """Raise ChatError unless the roles alternate, beginning with user, after a system message if that is taken."""
    first = 0
    if roles[0] == "system":
        if not takes_system:
            raise ChatError("System role not supported (message 0)")
        first = 1
    for index, role in enumerate(roles[first:]):
        if role == "system" or (role == "assistant") != (index % 2 == 1):
            raise ChatError(
                "Conversation roles must alternate user/assistant/user/assistant/..., "
                f"but message {first + index} is {role}"
            )


def _turn_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    start, end = tokenizer.control_id("<start_of_turn>"), tokenizer.control_id("<end_of_turn>")
    if start is None or end is None:
        raise ChatError("this model's vocabulary has no turn tokens, so it takes prompts with raw: true only")
    return start, end
