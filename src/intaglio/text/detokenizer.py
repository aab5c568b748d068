"""Turns token ids into text as they arrive, and finds stop strings.

A token may be part of a character, and a stop string may begin in one token and end in another. Text is returned as
soon as neither can change it any more, so it has whole characters only and no part of a stop string.
`completion.CompletionBuilder.push` ends the completion at a stop string.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from intaglio.errors import BadInputError
from intaglio.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextForm:
    """What of a completion's tokens becomes text.

    includes_stop   the stop string, or the text of the stop token, that ended the completion
    names_controls  control tokens by their names, as `Tokenizer.decode_with_names` writes them
    tokens_as_ids   in log-probabilities a token is written as `token_id:` and its id
    """

    includes_stop: bool = False
    names_controls: bool = False
    tokens_as_ids: bool = False


PLAIN_TEXT = TextForm()


class IncrementalDetokenizer:
    """The text of one completion. The returned pieces together are the text before the first stop string.

    The first stop string is the one whose end comes first; of two that end together, the longer. Without a stop string
    the pieces together are `Tokenizer.decode` of all ids, for every sequence of ids.

    stopped    the stop string that was found, else None; no text follows it
    tokenizer  the tokenizer of these ids
    form       what of them becomes text
    """

    stopped: str | None
    tokenizer: Tokenizer
    form: TextForm

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), form: TextForm = PLAIN_TEXT, *, min_tokens: int = 0
    ) -> None:
        """min_tokens: no stop string is looked for in the text of the first so many.

        Raises BadInputError for an empty stop string, which would match before the first token.
        """
        if "" in stop:
            raise BadInputError(f"stop string {list(stop).index('')} is empty")
        self.stopped = None
        self.tokenizer = tokenizer
        self.form = form
        self._num_unsearched = min_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._matchers = [_StopMatcher(text) for text in stop]
        self._held = ""

    @property
    def num_held(self) -> int:
        """How many characters are held back because a stop string may begin with them."""
        return len(self._held)

    def push(self, token_id: int) -> str:
        """Add one token; return the text that is now certain, often empty or more than this token's."""
        if self.stopped is not None:
            return ""
        raw = self.tokenizer.piece_bytes(token_id)
        if not raw and self.form.names_controls:
            raw = self.tokenizer.piece_name(token_id).encode()
        text = self._decoder.decode(raw)
        if self._num_unsearched:
            self._num_unsearched -= 1
            return text
        return self._find_stop(text)

    def finish(self) -> str:
        """The completion has ended: return the text held back. Call once."""
        if self.stopped is not None:
            return ""
        text = self._find_stop(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _find_stop(self, text: str) -> str:
        """Add decoded text; return what is certain, and set `stopped` at a stop string."""
        if not self._matchers:
            return text
        for index, char in enumerate(text):
            found = [matcher.text for matcher in self._matchers if matcher.advance(char)]
            if found:
                self.stopped = max(found, key=len)
                text = self._held + text[: index + 1]
                self._held = ""
                return text if self.form.includes_stop else text[: -len(self.stopped)]
        text = self._held + text
        safe = len(text) - max(matcher.matched for matcher in self._matchers)
        self._held = text[safe:]
        return text[:safe]


class _StopMatcher:
    """Knuth-Morris-Pratt search, one character at a time: the cost does not grow with the stop string.

    matched   length of the longest beginning of `text` that the input ends with; these characters are held back
    """

    __slots__ = ("_fallback", "matched", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        # _fallback[n]: the length of match to go on with when n characters matched and the next one does not
        self._fallback = [0, 0]
        length = 0
        for char in text[1:]:
            while length and text[length] != char:
                length = self._fallback[length]
            length += text[length] == char
            self._fallback.append(length)

    def advance(self, char: str) -> bool:
        """Add one character. True if the input now ends with `text`."""
        while self.matched and self.text[self.matched] != char:
            self.matched = self._fallback[self.matched]
        self.matched += self.text[self.matched] == char
        return self.matched == len(self.text)
