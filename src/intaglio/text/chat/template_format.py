"""Messages to token ids by the checkpoint's own chat template.

Many templates do not support a system role, contents in parts, or tools (`template_probes.py`). Such messages are
rewritten first, as llama.cpp does it: a system text goes in front of the first user text, parts become lines of one
text, a call and its result become texts.

Tools are always described by our own text (`tools.py`), never by the template: the completion must have the form of a
call that this text asks for, and is parsed in that form. A template would ask for another.

A message's text is encoded as plain text: see `shield.py`. The prompt has one BOS, at the start, whether the template
writes none, one or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

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
    said,
)
from intaglio.text.chat.shield import Shield
from intaglio.text.chat.template import ChatTemplate
from intaglio.text.chat.template_probes import find_abilities
from intaglio.text.tokenizer import Tokenizer

_Change = Callable[[str], str]


class TemplateFormat:
    """A chat template and the tokenizer of its model. Safe to use from several threads."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        """Raises ModelFormatError if the template leaves out the user's text."""
        self._tokenizer = tokenizer
        self._template = template
        self._abilities = find_abilities(template)
        self._shield = Shield(tokenizer.control_tokens, template.source)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
    ) -> list[int]:
        """The token ids of a conversation, with exactly one BOS, at the start. messages: as for `render_chat`.

        Raises ChatError: a message has a fault, or the template refuses them, such as roles that do not alternate.
        """
        known = self._known_messages(read_messages(messages))
        if not continue_final:
            return self._ids(known, add_generation_prompt)
        check_continued(messages)
        if not (text := known[-1].text.strip()):
            return self._ids(known[:-1], opening=True)
        return self._ids(known, opening=False, cut_after=text)

    def answered(self, messages: Sequence[Mapping[str, Any]]) -> AnsweredChat:
        """A conversation to train with: an answer is what the template writes for it after the ids of its request, up
        to the first token that ends a completion.

        Raises ChatError, also if the template changes earlier turns when a conversation is continued.
        """
        read = read_messages(messages)
        check_answers(read)
        known = self._known_messages(read)
        ids: list[int] = []
        answers: list[tuple[int, int]] = []
        for index, message in enumerate(known):
            if message.role != "assistant":
                continue
            request = self._ids(known[:index], True)
            whole = self._ids(known[: index + 1], False)
            if request[: len(ids)] != ids or whole[: len(request)] != request:
                raise ChatError(
                    f"{self._template.label}: the chat template changes earlier turns when a conversation is "
                    "continued, so training would not use the prompts of requests"
                )
            ends = (place for place in range(len(request), len(whole)) if whole[place] in self._tokenizer.stop_ids)
            ids = whole[: next(ends, len(whole) - 1) + 1]
            answers.append((len(request), len(ids)))
        return AnsweredChat(ids, tuple(answers))

    def _ids(self, known: Sequence[Message], opening: bool, cut_after: str | None = None) -> list[int]:
        """cut_after: the text of the last message, after which the prompt ends; None: where the template ends."""
        try:
            parts = self._split_text(known, opening)
        except RecursionError:
            raise ChatError("the arguments of a tool call are nested too deeply") from None
        if cut_after is not None:
            parts = self._cut(parts, cut_after)
        bos_id = self._tokenizer.bos_id
        ids = [bos_id]
        for part in parts:
            if part == bos_id and len(ids) == 1:
                continue
            ids.extend([part] if isinstance(part, int) else self._tokenizer.encode(part))
        return ids

    def _cut(self, parts: Sequence[str | int], text: str) -> list[str | int]:
        """The parts up to the last occurrence of the text."""
        for place in range(len(parts) - 1, -1, -1):
            part = parts[place]
            if isinstance(part, str) and (start := part.rfind(text)) >= 0:
                return [*parts[:place], part[: start + len(text)]]
        raise ChatError(
            f"{self._template.label}: the chat template changes the last message, which cannot be continued"
        )

    def _split_text(self, messages: Sequence[Message], opening: bool) -> list[str | int]:
        """The rendered text: control tokens that the template wrote as ids, between them plain text."""
        placeholders = self._shield.placeholders(_texts(messages))
        first = self._render(messages, placeholders.protect, opening)
        safe = self._render(messages, placeholders.protect_wholly, opening)
        chosen = first if _controls(first) == _controls(safe) else safe
        return [part if isinstance(part, int) else placeholders.restore(part) for part in chosen]

    def _render(self, messages: Sequence[Message], change: _Change, opening: bool) -> list[str | int]:
        written = [self._to_json(message, change) for message in messages]
        return self._tokenizer.split_at_control_tokens(self._template.render(written, add_generation_prompt=opening))

    def _known_messages(self, messages: Sequence[Message]) -> list[Message]:
        """The same conversation in messages that the template supports."""
        known = [message for message in messages if message.role != "system"]
        if not self._abilities.calls or any(message.unread for message in known):
            known = _without_calls(known)
        system = joined_system_text(messages)
        if system is None:
            return known
        if self._abilities.system:
            own = [message for message in messages if message.role == "system"]
            return [own[0] if len(own) == 1 else said("system", system), *known]
        if known and known[0].role == "user":
            return [said("user", f"{system}{SEPARATOR}{known[0].text}"), *known[1:]]
        return [said("user", system), *known]

    def _to_json(self, message: Message, change: _Change) -> dict[str, Any]:
        """The message as transformers gives it to a template, with every text changed."""
        written: dict[str, Any] = {"role": message.role, "content": self._content(message, change)}
        if message.calls:
            written["tool_calls"] = [
                {
                    "type": "function",
                    "id": change(call_id),
                    "function": {"name": change(call.name), "arguments": _map_texts(call.arguments, change)},
                }
                for call_id, call in message.calls
            ]
        if message.call_id is not None:
            written["tool_call_id"] = change(message.call_id)
        if message.tool is not None:
            written["name"] = change(message.tool)
        return written

    def _content(self, message: Message, change: _Change) -> str | list[dict[str, str]]:
        if self._abilities.parts and not (message.is_string and self._abilities.strings):
            return [{"type": "text", "text": change(part)} for part in message.parts]
        return change(message.text)


def _without_calls(messages: Sequence[Message]) -> list[Message]:
    """Calls become texts of the assistant, results texts of the user, joined with the user texts beside them."""
    known: list[Message] = []
    after_result = False
    for message in messages:
        is_result = message.role == "tool"
        if message.calls_text:
            known.append(said("assistant", SEPARATOR.join(part for part in (message.text, message.calls_text) if part)))
        elif message.role in ("user", "tool") and known and known[-1].role == "user" and (is_result or after_result):
            text = result_text(message, message.text) if is_result else message.text
            known[-1] = said("user", f"{known[-1].text}{SEPARATOR}{text}")
        else:
            known.append(said("user", result_text(message, message.text)) if is_result else message)
        after_result = is_result
    return known


def _controls(parts: Sequence[str | int]) -> list[int]:
    return [part for part in parts if isinstance(part, int)]


def _texts(messages: Sequence[Message]) -> Iterator[str]:
    """Every text that the caller wrote."""
    for message in messages:
        yield from message.parts
        yield from (text for text in (message.call_id, message.tool) if text is not None)
        for call_id, call in message.calls:
            yield from (call_id, call.name)
            yield from _inner_texts(call.arguments)


def _inner_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _inner_texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _inner_texts(item)


def _map_texts(value: Any, change: _Change) -> Any:
    """A copy of JSON values with every text changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(str(key)): _map_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_texts(item, change) for item in value]
    return value
