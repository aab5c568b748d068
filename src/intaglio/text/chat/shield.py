"""Keeps control tokens that are written in a message from becoming control tokens of the prompt.

A chat template joins its own control tokens and the contents of messages into one text, in which they can no longer be
told apart. So before rendering, the first character of each control token in the contents is replaced with a
placeholder, a private-use character that occurs nowhere else. The rendered text is split at control tokens while it has
the placeholders. Then these are replaced with the original characters, which are encoded as plain text. One character
takes the place of one, so that a template can trim, split and compare contents as without placeholders.

That misses a control token that is joined from two contents, from a content and the template's text, or from what a
template leaves of a content. So the text is rendered a second time, with placeholders for every character that control
tokens are made of. If the second text has other control tokens than the first, it is used instead; in that case the
template cannot find words in a content.

transformers 5.23 does the first of the two, with markers (`sanitize_control_tokens`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from intaglio.errors import ChatError

_PRIVATE_USE = range(0x10F000, 0x10FFFE)


@dataclass(frozen=True, slots=True)
class Placeholders:
    """For one conversation. Both `protect` functions put placeholders into a text, `restore` takes them out again.

    protect         replaces the first character of each control token
    protect_wholly  replaces every character that control tokens are made of, except white space
    """

    protect: Callable[[str], str]
    protect_wholly: Callable[[str], str]
    restore: Callable[[str], str]


class Shield:
    """Makes placeholders for the control tokens of one vocabulary.

    template  the source of the template, whose characters are not used
    """

    def __init__(self, control_tokens: Collection[str], template: str) -> None:
        self._tokens = frozenset(control_tokens)
        self._lengths = sorted({len(token) for token in control_tokens})
        self._first = re.compile("[" + "".join(map(re.escape, sorted({token[0] for token in control_tokens}))) + "]")
        self._characters = sorted({char for token in control_tokens for char in token if not char.isspace()})
        self._template = template

    def placeholders(self, texts: Iterable[str]) -> Placeholders:
        """The placeholders for a conversation of these texts. Raises ChatError if too few characters are unused."""
        used = {char for text in (*texts, self._template) for char in text if ord(char) >= _PRIVATE_USE.start}
        free = [chr(code) for code in _PRIVATE_USE if chr(code) not in used]
        if len(free) < len(self._characters):
            raise ChatError(
                f"the messages use nearly all of the {len(_PRIVATE_USE)} private-use characters from U+10F000 on"
            )
        placeholder = dict(zip(self._characters, free, strict=False))
        forth = {ord(char): other for char, other in placeholder.items()}
        back = {ord(other): char for char, other in placeholder.items()}

        def protect(text: str) -> str:
            def replaced(match: re.Match[str]) -> str:
                return placeholder[match[0]] if self._is_token(text, match.start()) else match[0]

            return self._first.sub(replaced, text)

        return Placeholders(protect, lambda text: text.translate(forth), lambda text: text.translate(back))

    def _is_token(self, text: str, place: int) -> bool:
        return any(text[place : place + length] in self._tokens for length in self._lengths)
