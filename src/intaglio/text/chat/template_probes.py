"""What a chat template does, found by rendering short conversations when the model is opened.

Gemma's own template is recognised by its output too. The published files differ in white space, quotes and order, and
GGUF converters, quantizers and training tools write them with small changes, so a list of hashes would never be
complete. A template that writes and refuses the same counts as Gemma's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from intaglio.errors import ChatError, ModelFormatError
from intaglio.text.chat.gemma_turns import fold_messages, turns_text
from intaglio.text.chat.template import ChatTemplate

_Messages = Sequence[Mapping[str, Any]]
_ASK, _BRIEF = "What is seven?", "Be brief, please."


class Abilities(NamedTuple):
    """Which messages a template supports.

    strings   contents that are strings; at least one of this and `parts` is True
    parts     contents in parts
    system    a system message at the start
    calls     an assistant's tool calls, and the messages of tools
    """

    strings: bool
    parts: bool
    system: bool
    calls: bool


class OwnTemplate(NamedTuple):
    """Gemma's own template. takes_system: Gemma 3's, which writes a system message; Gemma 1's and 2's refuses it."""

    takes_system: bool


def find_abilities(template: ChatTemplate) -> Abilities:
    """Raises ModelFormatError if the template leaves out the user's text."""
    strings = _writes(template, [_said("user", _ASK)], _ASK)
    in_parts = [_said("user", _parts(_ASK))]
    # A template that writes the array itself, as Python or as JSON, does not know parts.
    shown = any(_writes(template, in_parts, key) for key in ("'type'", '"type"'))
    parts = _writes(template, in_parts, _ASK) and not shown
    if not strings and not parts:
        raise ModelFormatError(f"{template.label}: the chat template leaves out the user's text{_why(template)}")
    content = str if strings else _parts
    asked = [_said("user", content(_ASK))]
    return Abilities(
        strings=strings,
        parts=parts,
        system=_writes(template, [_said("system", content(_BRIEF)), *asked], _BRIEF, _ASK),
        calls=_writes(
            template, [*asked, *_call_and_result(content("probe result"))], "probe_tool", "Oslo", "probe result"
        ),
    )


def recognise_own(template: ChatTemplate) -> OwnTemplate | None:
    """Gemma's own template, or None for any other."""
    if not all(_same(template, messages) for messages in _conversations()):
        return None
    plain = [_said("user", _ASK)]
    tools = [{"type": "function", "function": {"name": "probe_tool", "description": "", "parameters": {}}}]
    if _text(template, plain, tools) != _text(template, plain) or _shows(template, _call_and_result("found")):
        return None  # it has tools of its own
    if not _same_parts(template):
        return None
    system = [_said("system", f" {_BRIEF}\n"), _said("user", f" {_ASK} ")]
    if _text(template, system) is None:
        return OwnTemplate(takes_system=False)
    return OwnTemplate(takes_system=True) if _same(template, system) else None


def _conversations() -> Iterable[_Messages]:
    asked, answered = _said("user", f"\n {_ASK}\t"), _said("assistant", " It is  7.\n\n7 ")
    yield [asked]
    yield [asked, answered]
    yield [asked, answered, _said("user", "Why?\n\n<b>Why</b>?")]
    yield [_said("user", ""), _said("assistant", " "), _said("user", "\n")]
    yield [asked, answered] * 6


def _same(template: ChatTemplate, messages: _Messages) -> bool:
    """Whether it writes what Gemma's template writes, with and without the opening of the model's turn."""
    turns = fold_messages(messages)
    return all(
        _text(template, messages, opening=opening) == turns_text(turns, add_generation_prompt=opening)
        for opening in (True, False)
    )


def _same_parts(template: ChatTemplate) -> bool:
    """Whether parts are joined as Gemma 3 does it, or not known: then Python's notation of the list is written."""
    messages = [_said("user", [*_parts(" a "), *_parts("b\n")])]
    return _same(template, messages) or "'type'" in (_text(template, messages) or "'type'")


def _text(
    template: ChatTemplate, messages: _Messages, tools: _Messages | None = None, *, opening: bool = True
) -> str | None:
    """The text after BOS; None if the template refuses the messages or has a fault."""
    try:
        text = template.render(messages, add_generation_prompt=opening, tools=tools)
    except ChatError:
        return None
    return text.removeprefix(template.special_tokens.get("bos_token", ""))


def _writes(template: ChatTemplate, messages: _Messages, *needles: str) -> bool:
    """Whether all needles are in the text, in capitals or not: a template may change that."""
    text = _text(template, messages)
    return text is not None and all(needle.lower() in text.lower() for needle in needles)


def _shows(template: ChatTemplate, call: _Messages) -> bool:
    return _writes(template, [_said("user", _ASK), *call], "probe_tool")


def _why(template: ChatTemplate) -> str:
    try:
        template.render([_said("user", _ASK)], add_generation_prompt=True)
    except ChatError as error:
        return f" ({error})"
    return ""


def _said(role: str, content: object) -> dict[str, Any]:
    return {"role": role, "content": content}


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _call_and_result(result: object) -> _Messages:
    """A call of a tool and its result, in the form that transformers documents."""
    function = {"name": "probe_tool", "arguments": {"city": "Oslo"}}
    call = {"id": "abcdefghi", "type": "function", "function": function}
    return [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "probe_tool", "content": result},
    ]
