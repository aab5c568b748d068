"""From the engine's tokens to a completion: detokenized text up to a stop string, usage and finish reason.

`IncrementalDetokenizer` (text/detokenizer.py) finds the stop strings; `CompletionBuilder.push` ends the completion
there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from intaglio.errors import AdapterUseError, EngineError, IntaglioError
from intaglio.request import EngineRequest, FinishReason, PromptLogprobs, TokenLogprobs, TokenOutput
from intaglio.text import PLAIN_TEXT, IncrementalDetokenizer, TextForm, Tokenizer


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
class TokenLogprob:
    """One token of a completion and its probability by the model, before anything that steers sampling.

    text     of this token alone; bytes that are not a whole character are U+FFFD. For a control token its name
    raw      the bytes it adds to the text; none for a control token
    logprob  natural logarithm of its probability
    best     the most probable tokens at this position, (text, raw, logprob), best first; as many as were asked for
    named_by_id  the texts are the tokens' ids, see `TextForm`
    """

    text: str
    raw: bytes
    logprob: float
    best: tuple[tuple[str, bytes, float], ...]
    named_by_id: bool = False


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of a completion. The last one, and only it, has a finish reason and usage; with ERROR `failure` says why.

    logprobs  of the tokens whose text begins in this piece; empty unless asked for. A stop token, and tokens that begin
              after the start of a stop string, are not part of the completion and are not listed
    stop_string  the one that ended the completion, in the last piece; None if none did
    prompt_logprobs  with the first piece, if they were asked for
    num_tokens  of the completion, this piece's included
    """

    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    failure: IntaglioError | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    stop_string: str | None = None
    prompt_logprobs: PromptLogprobs | None = None
    num_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """Generated text and why it ended. logprobs: of all its tokens, prompt_logprobs: of the prompt's, if asked for."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: PromptLogprobs | None = None


class CompletionBuilder:
    """Turns the engine's outputs for one request into text deltas.

    lists_stop  a stop token that ends the completion is listed in `logprobs`, as is every token of a scored prompt:
                who counts on from the prompt's tokens finds each token of the completion in its place
    """

    def __init__(
        self, num_prompt_tokens: int, detokenizer: IncrementalDetokenizer, *, lists_stop: bool = False
    ) -> None:
        self._num_prompt_tokens = num_prompt_tokens
        self._lists_stop = lists_stop
        self._detokenizer = detokenizer
        self._num_tokens = 0
        self._num_cached = 0
        self._num_chars = 0  # in deltas so far
        self._unlisted: deque[tuple[int, TokenLogprob]] = deque()  # each with the character at which its text begins

    def push(self, output: TokenOutput) -> TextDelta:
        """The delta for one engine output.

        A delta with finish_reason STOP whose output had none means that a stop string was found: the caller then has
        to abort the request in the engine.
        """
        delta = self._push(output)
        return delta if output.prompt_logprobs is None else replace(delta, prompt_logprobs=output.prompt_logprobs)

    def _push(self, output: TokenOutput) -> TextDelta:
        self._num_cached = max(self._num_cached, output.cached_tokens)
        text = ""
        if output.token_id is not None:
            self._num_tokens += 1
            # A stop token's own text is part of the completion only if that is asked for.
            if output.finish_reason is not FinishReason.STOP or self._detokenizer.form.includes_stop:
                text = self._push_token(output.token_id, output.logprobs)
            elif self._lists_stop:
                self._list_token(output.token_id, output.logprobs)
        if self._detokenizer.stopped is not None:
            return self._last_delta(text, FinishReason.STOP)
        if output.finish_reason is None:
            return TextDelta(text, logprobs=self._pop_logprobs(text), num_tokens=self._num_tokens)
        text += self._detokenizer.finish()
        reason = FinishReason.STOP if self._detokenizer.stopped is not None else output.finish_reason
        return self._last_delta(text, reason, _failure(output))

    def _push_token(self, token_id: int, logprobs: TokenLogprobs | None) -> str:
        self._list_token(token_id, logprobs)
        return self._detokenizer.push(token_id)

    def _list_token(self, token_id: int, logprobs: TokenLogprobs | None) -> None:
        if logprobs is not None:
            begin = self._num_chars + self._detokenizer.num_held
            self._unlisted.append((begin, _token_logprob(self._detokenizer, token_id, logprobs)))

    def _pop_logprobs(self, text: str, *, all_left: bool = False) -> tuple[TokenLogprob, ...]:
        """Count the text of a delta. Returns the tokens that begin in the text so far, or all that are left."""
        self._num_chars += len(text)
        listed = []
        while self._unlisted and (all_left or self._unlisted[0][0] < self._num_chars):
            listed.append(self._unlisted.popleft()[1])
        return tuple(listed)

    def _last_delta(self, text: str, reason: FinishReason, failure: IntaglioError | None = None) -> TextDelta:
        usage = Usage(self._num_prompt_tokens, self._num_tokens, self._num_cached)
        logprobs = self._pop_logprobs(text, all_left=self._detokenizer.stopped is None)
        stopped = self._detokenizer.stopped
        return TextDelta(text, reason, usage, failure, logprobs, stopped, num_tokens=self._num_tokens)


def request_builder(
    request: EngineRequest, tokenizer: Tokenizer, stop: Sequence[str], form: TextForm = PLAIN_TEXT
) -> CompletionBuilder:
    """The builder of one request's text, which ends before the first of the `stop` strings.

    form  what of the tokens becomes text
    Raises BadInputError for an empty stop string.
    """
    params = request.params
    detokenizer = IncrementalDetokenizer(tokenizer, stop, form, min_tokens=params.min_tokens)
    return CompletionBuilder(len(request.prompt_ids), detokenizer, lists_stop=params.prompt_logprobs is not None)


def _failure(output: TokenOutput) -> IntaglioError | None:
    if output.finish_reason is not FinishReason.ERROR:
        return None
    reason = output.error or "the engine failed"
    return AdapterUseError(reason) if output.refused else EngineError(reason)


def _token_logprob(detokenizer: IncrementalDetokenizer, token_id: int, logprobs: TokenLogprobs) -> TokenLogprob:
    as_id = detokenizer.form.tokens_as_ids

    def written(token: int) -> tuple[str, bytes]:
        text, raw = text_and_bytes(detokenizer.tokenizer, token)
        return (id_name(token) if as_id else text), raw

    best = tuple((*written(other), logprob) for other, logprob in logprobs.best)
    return TokenLogprob(*written(token_id), logprobs.chosen, best, named_by_id=as_id)


def id_name(token_id: int) -> str:
    """A token as vLLM writes it where ids are asked for."""
    return f"token_id:{token_id}"


def text_and_bytes(tokenizer: Tokenizer, token_id: int) -> tuple[str, bytes]:
    """The text and the bytes of one token, as `TokenLogprob` has them."""
    raw = tokenizer.piece_bytes(token_id)
    return (raw.decode("utf-8", "replace") if raw else tokenizer.piece_name(token_id)), raw


def join_deltas(deltas: Sequence[TextDelta]) -> Completion:
    """The whole completion. Raises EngineError if the request failed, AdapterUseError if its adapters cannot be used
    as it asks.
    """
    last = deltas[-1]
    assert last.finish_reason is not None, "the last delta says why it is the last"
    assert last.usage is not None
    if last.failure is not None:
        raise last.failure
    return Completion(
        "".join(delta.text for delta in deltas),
        last.finish_reason,
        last.usage,
        tuple(logprob for delta in deltas for logprob in delta.logprobs),
        deltas[0].prompt_logprobs,
    )
