"""Token ids to text while they arrive: whole characters only, and nothing of a stop string.

A token may hold part of a character, and a stop string may begin in one token and end in another. Text is
given out as soon as neither can change it any more.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from intaglio.errors import BadInputError
from intaglio.text.tokenizer import Tokenizer


class IncrementalDetokenizer:
    """The text of one answer. The pieces given out, put together, are the text up to the first stop string.

    First is the stop string whose end comes first; where two end together, the longer. Without a stop string
    the pieces put together equal `Tokenizer.decode` of all ids, for every sequence of ids.

    stopped    the stop string that was met, else None; after it no more text comes
    tokenizer  whose tokens these are
    """

    stopped: str | None
    tokenizer: Tokenizer

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        """Raises BadInputError for an empty stop string, which would match before the first token."""
        if "" in stop:
            raise BadInputError(f"stop string {list(stop).index('')} is empty")
        self.stopped = None
        self.tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._matchers = [_StopMatcher(text) for text in stop]
        self._held = ""

    @property
    def num_held(self) -> int:
        """Whole characters that have come but are not given out yet, because a stop string may begin with them."""
        return len(self._held)

    def push(self, token_id: int) -> str:
        """Take one token; return the text that is now certain, often empty or more than this token's."""
        if self.stopped is not None:
            return ""
        return self._release(self._decoder.decode(self.tokenizer.piece_bytes(token_id)))

    def finish(self) -> str:
        """The answer has ended: return what was held back. Call once."""
        if self.stopped is not None:
            return ""
        text = self._release(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _release(self, text: str) -> str:
        if not self._matchers:
            return text
        for index, char in enumerate(text):
            met = [matcher.text for matcher in self._matchers if matcher.advance(char)]
            if met:
                self.stopped = max(met, key=len)
                text = self._held + text[: index + 1]
                self._held = ""
                return text[: -len(self.stopped)]
        text = self._held + text
        safe = len(text) - max(matcher.matched for matcher in self._matchers)
        self._held = text[safe:]
        return text[:safe]


class _StopMatcher:
    """Knuth, Morris and Pratt's search, one character at a time: the cost does not grow with the stop string.

    matched   how many characters of `text` the input ends with: what must be held back
    """

    __slots__ = ("_fallback", "matched", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        # _fallback[n]: after n characters matched and no n+1, the longest shorter match that may go on
        self._fallback = [0, 0]
        length = 0
        for char in text[1:]:
            while length and text[length] != char:
                length = self._fallback[length]
            length += text[length] == char
            self._fallback.append(length)

    def advance(self, char: str) -> bool:
        """Take one character; whether `text` ends with it."""
        while self.matched and self.text[self.matched] != char:
            self.matched = self._fallback[self.matched]
        self.matched += self.text[self.matched] == char
        return self.matched == len(self.text)
