"""Log-probabilities of tokens in OpenAI's two shapes. They are of the model's own distribution, before any sampling."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from intaglio.api.openai.responses import ChatLogprobs, ChatToken, LikelyToken, TextLogprobs
from intaglio.completion import TokenLogprob

_LEAST = -9999.0  # OpenAI's number for "never"; JSON has no minus infinity


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
    """The shape of chat completions: an entry per token, with its bytes, and as many of the best as were asked for."""
    return ChatLogprobs(
        [
            ChatToken(
                _name(token, token.text, token.raw, ""),
                finite(token.logprob),
                list(token.raw),
                [
                    LikelyToken(_name(token, text, raw, ""), finite(logprob), list(raw))
                    for text, raw, logprob in token.best
                ],
            )
            for token in tokens
        ]
    )


class TextOffsets:
    """Where in an answer, in characters, each token begins. A character of several tokens counts after its last."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_chars = 0

    def begin_of(self, raw: bytes) -> int:
        """Take the next token, by the bytes that it has in the answer."""
        begin = self._num_chars
        self._num_chars += len(self._decoder.decode(raw))
        return begin

    def restart(self, num_chars: int) -> None:
        """The prompt, which has so many characters, is over; what follows begins with a whole character."""
        self._decoder.reset()
        self._num_chars = num_chars


def text_logprobs(tokens: Sequence[TokenLogprob], offsets: TextOffsets) -> TextLogprobs:
    """The shape of completions: parallel lists. offsets: those of the tokens' choice.

    The chosen token is among its top_logprobs, which may so have one more than were asked for.
    """
    names = [_name(token, token.text, token.raw, "bytes:") for token in tokens]
    return TextLogprobs(
        names,
        [finite(token.logprob) for token in tokens],
        [_best(name, token) for name, token in zip(names, tokens, strict=True)],
        [offsets.begin_of(token.raw) for token in tokens],
    )


def _best(name: str, token: TokenLogprob) -> dict[str, float]:
    best = {_name(token, text, raw, "bytes:"): finite(logprob) for text, raw, logprob in token.best}
    return {**best, name: finite(token.logprob)}


def _name(token: TokenLogprob, text: str, raw: bytes, prefix: str) -> str:
    return text if token.named_by_id else token_name(text, raw, prefix)


def token_name(text: str, raw: bytes, prefix: str) -> str:
    """The token's text; where it is a part of a character only, its bytes, written out."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return prefix + "".join(f"\\x{byte:02x}" for byte in raw)
    return text


def finite(logprob: float) -> float:
    return max(logprob, _LEAST)
