"""The tokens of a prompt with their log-probabilities, as OpenAI's `echo` and as vLLM's `prompt_logprobs` write them.

The first token of a prompt has none: nothing stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from intaglio.api.openai.logprobs import TextOffsets, finite, token_name
from intaglio.api.openai.responses import PromptToken, TextLogprobs
from intaglio.completion import id_name, text_and_bytes
from intaglio.request import PromptLogprobs
from intaglio.text import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt and the tokens that it became.

    text        the text that was sent; None for token ids and chats, whose control tokens have no characters
    echoed      what stands in front of the completion; None if it is not wanted
    num_echoed  alternatives per token in the logprobs of the echo
    num_by_id   alternatives per token in vLLM's form; None if it is not wanted
    tokens_as_ids  the echo's tokens are written as ids
    """

    ids: Sequence[int]
    tokenizer: Tokenizer
    text: str | None = None
    echoed: str | None = None
    num_echoed: int = 0
    num_by_id: int | None = None
    tokens_as_ids: bool = False

    def written(self) -> list[bytes]:
        """The bytes that each token has in the echoed text."""
        raw = [self.tokenizer.piece_bytes(token_id) for token_id in self.ids]
        if self.text is None:
            return raw
        names = [self.tokenizer.piece_name(token_id) for token_id in self.ids]
        in_text = [piece or name.encode() for piece, name in zip(raw, names, strict=True)]
        if not raw[0] and not self.text.startswith(names[0]):
            in_text[0] = b""  # a BOS that was added
        return in_text


@dataclass(frozen=True, slots=True)
class ScoredPrompt:
    """A prompt with the scores of its tokens from the second on."""

    prompt: Prompt
    scores: PromptLogprobs

    def echo(self, offsets: TextOffsets) -> TextLogprobs:
        """Parallel lists with an entry for each token: the alternatives and, if it is none of them, the token itself.

        offsets: those of the choice, which go on with its completion.
        """
        names = [self._name(token_id) for token_id in self.prompt.ids]
        logprobs: list[float | None] = [None]
        best: list[dict[str, float] | None] = [None]
        for name, row in zip(names[1:], self.scores.rows(), strict=True):
            logprobs.append(finite(row.chosen))
            alternatives = {
                self._name(token_id): finite(logprob) for token_id, logprob in row.best[: self.prompt.num_echoed]
            }
            best.append({**alternatives, name: finite(row.chosen)})
        begins = [offsets.begin_of(raw) for raw in self.prompt.written()]
        offsets.restart(len(self.prompt.echoed or ""))
        return TextLogprobs(names, logprobs, best, begins)

    def by_id(self) -> list[dict[str, PromptToken] | None]:
        """vLLM's form: for each token a map of token ids, the prompt's own token first, then the alternatives."""
        entries: list[dict[str, PromptToken] | None] = [None]
        for token_id, row in zip(self.prompt.ids[1:], self.scores.rows(), strict=True):
            entry = {str(token_id): self._entry(token_id, row.chosen, row.rank)}
            for place, (other, logprob) in enumerate(row.best[: self.prompt.num_by_id], 1):
                entry.setdefault(str(other), self._entry(other, logprob, place))
            entries.append(entry)
        return entries

    def _entry(self, token_id: int, logprob: float, rank: int) -> PromptToken:
        return PromptToken(finite(logprob), rank, text_and_bytes(self.prompt.tokenizer, token_id)[0])

    def _name(self, token_id: int) -> str:
        if self.prompt.tokens_as_ids:
            return id_name(token_id)
        return token_name(*text_and_bytes(self.prompt.tokenizer, token_id), "bytes:")
