"""Find control tokens such as `<start_of_turn>` written out in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping


class ControlPieces:
    """Cuts a text at the control tokens in it, the longest one first where several begin at one place."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        """ids: text -> token id, at least one, no text empty."""
        self._ids = ids
        self._first = re.compile("[" + "".join(re.escape(c) for c in sorted({p[0] for p in ids})) + "]")
        self._lengths = sorted({len(piece) for piece in ids}, reverse=True)

    def split(self, text: str) -> Iterator[str | int]:
        """The text in order: plain stretches (never empty) as str, control tokens as their id."""
        plain_start = search_start = 0
        while match := self._first.search(text, search_start):
            begin = match.start()
            length = self._length_at(text, begin)
            if length == 0:
                search_start = begin + 1
                continue
            if begin > plain_start:
                yield text[plain_start:begin]
            yield self._ids[text[begin : begin + length]]
            plain_start = search_start = begin + length
        if plain_start < len(text):
            yield text[plain_start:]

    def _length_at(self, text: str, begin: int) -> int:
        return next((n for n in self._lengths if text[begin : begin + n] in self._ids), 0)
