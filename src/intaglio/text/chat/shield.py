"""Keeps control tokens that are written in a message from becoming control tokens of the prompt.

A chat template joins its own control tokens and the contents of messages to one text, and then nothing says which is
which. So before rendering, in the contents, the first character of each control token is replaced with a stand-in, a
private-use character that occurs nowhere else. The text is divided at control tokens while the stand-ins are in it.
Then they are replaced with the characters again, and encoded as plain text. One character stands for one, so that what
a template does to contents (trimming, splitting, comparing) works as without. The end of a content counts too where it
could be the begin of a control token, because another content may follow.

transformers 5.23 does the same with markers (`sanitize_control_tokens`); it does not see a token made of two contents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from intaglio.errors import ChatError

_PRIVATE_USE = range(0x10F000, 0x10FFFE)


@dataclass(frozen=True, slots=True)
class StandIns:
    """For one conversation. `protect` puts stand-ins into a text, `restore` takes them out again."""

    protect: Callable[[str], str]
    restore: Callable[[str], str]


class Shield:
    """Makes stand-ins for the control tokens of one vocabulary.

    template  the source of the template, whose characters are not used
    """

    def __init__(self, control_tokens: Collection[str], template: str) -> None:
        self._tokens = frozenset(control_tokens)
        self._lengths = sorted({len(token) for token in control_tokens})
        self._prefixes = frozenset(token[:end] for token in control_tokens for end in range(1, len(token)))
        self._first_chars = sorted({token[0] for token in control_tokens})
        self._first = re.compile("[" + "".join(map(re.escape, self._first_chars)) + "]")
        self._template = template

    def concerns(self, texts: Iterable[str]) -> bool:
        """Whether any character of the texts could begin a control token."""
        return any(self._first.search(text) for text in texts)

    def stand_ins(self, texts: Iterable[str], *, wholly: bool = False) -> StandIns:
        """The stand-ins for a conversation of these texts.

        wholly   replace each character that could begin a control token, not only those that do
        Raises ChatError if the texts use every private-use character.
        """
        used = {char for text in (*texts, self._template) for char in text if ord(char) >= _PRIVATE_USE.start}
        free = [chr(code) for code in _PRIVATE_USE if chr(code) not in used]
        if len(free) < len(self._first_chars):
            raise ChatError(f"the messages use nearly all of the {len(_PRIVATE_USE)} characters from U+10F000 on")
        stand_in = dict(zip(self._first_chars, free, strict=False))
        back = {ord(char): original for original, char in stand_in.items()}

        def protect(text: str) -> str:
            def replaced(match: re.Match[str]) -> str:
                return stand_in[match[0]] if wholly or self._begins_token(text, match.start()) else match[0]

            return self._first.sub(replaced, text)

        return StandIns(protect, lambda text: text.translate(back))

    def _begins_token(self, text: str, place: int) -> bool:
        """Whether a control token begins here, or could, if something followed the text."""
        rest = text[place : place + self._lengths[-1]]
        return any(rest[:length] in self._tokens for length in self._lengths) or rest in self._prefixes
