"""One answer as text: the engine's tokens through the detokenizer, with stop strings, usage and the reason of the
end.
"""

from __future__ import annotations

from dataclasses import dataclass

from intaglio.errors import EngineError
from intaglio.request import FinishReason, TokenOutput
from intaglio.text import IncrementalDetokenizer


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request. cached_tokens: how many of the prompt's came from the prefix cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of an answer. The last one, and only it, has a finish reason and usage; after ERROR `error` says why."""

    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    finish_reason: FinishReason
    usage: Usage


class AnswerBuilder:
    """Turns the engine's outputs for one request into text deltas."""

    def __init__(self, num_prompt_tokens: int, detokenizer: IncrementalDetokenizer) -> None:
        self._num_prompt_tokens = num_prompt_tokens
        self._detokenizer = detokenizer
        self._num_tokens = 0
        self._num_cached = 0

    def take(self, output: TokenOutput) -> TextDelta:
        """The delta for one engine output. With finish_reason STOP on a delta whose output had none, a stop string
        was met and the engine still has to be told."""
        self._num_cached = max(self._num_cached, output.cached_tokens)
        text = ""
        if output.token_id is not None:
            self._num_tokens += 1
            if output.finish_reason is not FinishReason.STOP:  # a stop token's own text is not part of the answer
                text = self._detokenizer.push(output.token_id)
        if self._detokenizer.stopped is not None:
            return self._last(text, FinishReason.STOP)
        if output.finish_reason is None:
            return TextDelta(text)
        text += self._detokenizer.finish()
        reason = FinishReason.STOP if self._detokenizer.stopped is not None else output.finish_reason
        return self._last(text, reason, output.error)

    def _last(self, text: str, reason: FinishReason, error: str | None = None) -> TextDelta:
        return TextDelta(text, reason, Usage(self._num_prompt_tokens, self._num_tokens, self._num_cached), error)


def join_deltas(deltas: list[TextDelta]) -> Completion:
    """The whole answer. Raises EngineError if it ended in an error."""
    last = deltas[-1]
    assert last.finish_reason is not None, "the last delta says why it is the last"
    assert last.usage is not None
    if last.finish_reason is FinishReason.ERROR:
        raise EngineError(last.error or "the engine failed")
    return Completion("".join(delta.text for delta in deltas), last.finish_reason, last.usage)
