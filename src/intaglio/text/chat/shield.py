"""Keeps control tokens that are written in a message from becoming control tokens of the prompt.

A chat template joins its own control tokens and the contents of messages to one text, and then nothing says which is
which. So before rendering, in the contents, the first character of each control token is replaced with a stand-in, a
private-use character that occurs nowhere else. The text is divided at control tokens while the stand-ins are in it.
Then they are replaced with the characters again, and encoded as plain text. One character stands for one, so that what
a template does to contents (trimming, splitting, comparing) works as without.

That does not see a token made of two contents, of a content and the template's text, or of what a template leaves after
cutting. So the text is rendered a second time, with stand-ins for every character of which control tokens are made: if
it has other control tokens than the first, it is used instead. Then a template does not see words in a content.

transformers 5.23 does the first of the two, with markers (`sanitize_control_tokens`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from intaglio.errors import ChatError

_PRIVATE_USE = range(0x10F000, 0x10FFFE)


@dataclass(frozen=True, slots=True)
class StandIns:
    """For one conversation. Both `protect` functions put stand-ins into a text, `restore` takes them out again.

    protect         replaces the first character of each control token
    protect_wholly  replaces every character, except white space, of which control tokens are made
    """

    protect: Callable[[str], str]
    protect_wholly: Callable[[str], str]
    restore: Callable[[str], str]


class Shield:
    """Makes stand-ins for the control tokens of one vocabulary.

    template  the source of the template, whose characters are not used
    """

    def __init__(self, control_tokens: Collection[str], template: str) -> None:
        self._tokens = frozenset(control_tokens)
        self._lengths = sorted({len(token) for token in control_tokens})
        self._first = re.compile("[" + "".join(map(re.escape, sorted({token[0] for token in control_tokens}))) + "]")
        self._characters = sorted({char for token in control_tokens for char in token if not char.isspace()})
        self._template = template

    def stand_ins(self, texts: Iterable[str]) -> StandIns:
        """The stand-ins for a conversation of these texts. Raises ChatError if they use every private-use character."""
        used = {char for text in (*texts, self._template) for char in text if ord(char) >= _PRIVATE_USE.start}
        free = [chr(code) for code in _PRIVATE_USE if chr(code) not in used]
        if len(free) < len(self._characters):
            raise ChatError(f"the messages use nearly all of the {len(_PRIVATE_USE)} characters from U+10F000 on")
        stand_in = dict(zip(self._characters, free, strict=False))
        forth = {ord(char): other for char, other in stand_in.items()}
        back = {ord(other): char for char, other in stand_in.items()}

        def protect(text: str) -> str:
            def replaced(match: re.Match[str]) -> str:
                return stand_in[match[0]] if self._is_token(text, match.start()) else match[0]

            return self._first.sub(replaced, text)

        return StandIns(protect, lambda text: text.translate(forth), lambda text: text.translate(back))

    def _is_token(self, text: str, place: int) -> bool:
        return any(text[place : place + length] in self._tokens for length in self._lengths)
