"""A model with a rule instead of weights: its completion is the prompt's words in reverse order, one per delta.

It has the interface of AsyncLLM that the API uses, so tests of the API need no engine. Words in the prompt control it;
they come into effect when they are reached in the reversed order:

    <stall>   the completion stops and never continues
    <fail>    the completion ends with an EngineError
    <refuse>  the completion ends with an AdapterUseError
    <crash>   the iterator raises an unexpected exception

With `<answer>text</answer>` in the prompt the completion is that text, one word with the space before it per delta.
With adapters, any other completion begins with their digests and scales. A stop string ends a completion only where a
word is that string.
"""

from __future__ import annotations

import asyncio
import math
import re
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from intaglio.completion import TextDelta, TokenLogprob, Usage
from intaglio.engine.scoring.prompt_scores import PromptScores
from intaglio.errors import (
    AdapterUseError,
    CapacityError,
    ChatError,
    ContextLengthError,
    EngineDeadError,
    EngineError,
    IntaglioError,
)
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig
from intaglio.ops import LogprobsRow
from intaglio.request import (
    FinishReason,
    Priority,
    PromptLogprobs,
    SamplingParams,
    ScaledAdapter,
    Verification,
    VerifiedAdapter,
)
from intaglio.status import EngineStatus
from intaglio.text import PLAIN_TEXT, TextForm

DEADLINE_S = 20.0
_OPEN, _CLOSE = "<answer>", "</answer>"


class FakeRequestHandle:
    """A running request that yields the words of its completion."""

    def __init__(
        self,
        llm: FakeLLM,
        words: list[str],
        num_prompt_tokens: int,
        max_tokens: int,
        num_logprobs: int | None = None,
        stop: Sequence[str] = (),
        scores: PromptLogprobs | None = None,
    ) -> None:
        self._llm = llm
        self._words = words
        self._num_prompt_tokens = num_prompt_tokens
        self._max_tokens = max_tokens
        self._ended = False
        self._num_logprobs = num_logprobs
        self._stop = stop
        self._scores = scores
        llm.num_open += 1

    async def __aiter__(self) -> AsyncIterator[TextDelta]:
        given = self._words[: self._max_tokens]
        for number, piece in enumerate(given):
            word = piece.strip()
            if word in self._stop:
                self._end()
                yield TextDelta("", FinishReason.STOP, self._usage(number), stop_string=word)
                return
            if word == "<stall>" and self._llm.stalls:
                self._llm.stalled.set()
                await asyncio.Event().wait()
            if word == "<crash>":
                raise ZeroDivisionError("an unexpected fault")
            if word == "<fail>":
                self._end()
                yield TextDelta("", FinishReason.ERROR, self._usage(number), EngineError("the engine process ended"))
                return
            if word == "<refuse>":
                self._end()
                yield TextDelta("", FinishReason.ERROR, self._usage(number), AdapterUseError("too many adapters"))
                return
            yield TextDelta(
                piece, logprobs=self._logprobs(piece), prompt_logprobs=self._scores if number == 0 else None
            )
        self._end()
        reason = FinishReason.LENGTH if len(given) < len(self._words) else FinishReason.STOP
        yield TextDelta("", reason, self._usage(len(given)), prompt_logprobs=None if given else self._scores)

    async def abort(self) -> None:
        if not self._ended:
            self._end()
            self._llm.aborted.set()

    def _end(self) -> None:
        self._ended = True
        self._llm.num_open -= 1

    def _logprobs(self, piece: str) -> tuple[TokenLogprob, ...]:
        """The piece as one token of probability 1/2; the others are named by their rank, each half as probable."""
        if self._num_logprobs is None:
            return ()
        best = [(str(k), str(k).encode(), -math.log(2) * (k + 1)) for k in range(1, self._num_logprobs)]
        chosen = (piece, piece.encode(), -math.log(2))
        return (TokenLogprob(*chosen, best=(chosen, *best)[: self._num_logprobs]),)

    def _usage(self, completion_tokens: int) -> Usage:
        return Usage(self._num_prompt_tokens, completion_tokens, cached_tokens=1)


def fake_scores(prompt_ids: Sequence[int], num_best: int) -> PromptLogprobs:
    """Token i of a prompt has the log-probability -i, and rank 1; the ids 0, 1, ... are as good as it."""
    collected = PromptScores(len(prompt_ids) - 1, num_best)
    for place in range(1, len(prompt_ids)):
        collected.add(LogprobsRow(-float(place), 1, [(other, -float(place)) for other in range(num_best)]))
    return collected.packed()


class FakeTokenizer:
    """What the API uses of a tokenizer. Each word of each prompt gets a new token id."""

    vocab_size = 5000
    bos_id, eos_id, pad_id = 4998, 4999, None

    def __init__(self, words: list[str]) -> None:
        self._words = words

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(self.piece_name, ids))

    decode_with_names = decode

    def encode(self, text: str, *, special: bool = False, add_bos: bool = False) -> list[int]:
        start = len(self._words)
        self._words += ["<bos>"] * add_bos + text.split()
        return list(range(start, len(self._words)))

    def piece_name(self, token_id: int) -> str:
        return self._words[token_id] if token_id < len(self._words) else f"<{token_id}>"

    def piece_bytes(self, token_id: int) -> bytes:
        return self._words[token_id].encode()


class FakeLLM:
    """One fake base.

    submitted  the arguments of every request
    full       refuse every request with CapacityError
    busy       refuse only requests with `reject_if_busy`
    """

    def __init__(self, model_id: str, config: ModelConfig, window: int = 1000) -> None:
        self.model_id = model_id
        self.config = config
        self.base_tables = None
        self.window = window
        self.is_pretrained = False
        self.ready = True
        self.full = False
        self.busy = False
        self.closed = False
        self.submitted: list[tuple[str, SamplingParams, tuple[ScaledAdapter, ...], tuple[str, ...]]] = []
        self.chat_template = "{{ messages }}"
        self.endings: list[tuple[bool, bool]] = []  # of `render_messages`: its two options
        self.groups: list[int] = []  # how many requests were submitted together
        self.priorities: list[Priority] = []  # of the submitted requests, in the same order
        self.forms: list[TextForm] = []  # of the submitted requests too
        self.salts: list[str | None] = []
        self.stalls = True  # False: <stall> is a word like any other
        self.stalled = threading.Event()
        self.aborted = threading.Event()
        self.verification_begun = threading.Event()
        self.verification_may_end = threading.Event()  # while it is cleared, verifications wait
        self.verification_may_end.set()
        self.verification_error: IntaglioError | None = None  # raised by verifications if it is set
        self.num_open = 0  # requests that neither ended nor were aborted
        self._words: list[str] = []
        self.tokenizer = FakeTokenizer(self._words)

    def render_prompt(self, prompt: str, *, raw: bool) -> list[int]:
        return self._ids(prompt if raw else f"user: {prompt} model:")

    def render_messages(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
    ) -> list[int]:
        self.endings.append((add_generation_prompt, continue_final))
        for index, message in enumerate(messages):
            if message.get("content") is None and message["role"] != "assistant":
                raise ChatError(f"content of message {index} is null")
        return self._ids(" ".join(f"{message['role']}: {message.get('content')}" for message in messages))

    async def submit_all(
        self, prompt_ids: list[int], params: Sequence[SamplingParams], **options: Any
    ) -> list[FakeRequestHandle]:
        self.groups.append(len(params))
        return [await self.submit(prompt_ids, one, **options) for one in params]

    async def submit(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        *,
        adapters: Sequence[ScaledAdapter] = (),
        stop: Sequence[str] = (),
        priority: Priority = Priority.INTERACTIVE,
        reject_if_busy: bool = False,
        cache_salt: str | None = None,
        form: TextForm = PLAIN_TEXT,
    ) -> FakeRequestHandle:
        max_tokens = self.window - len(prompt_ids) if params.max_tokens is None else params.max_tokens
        if len(prompt_ids) + max_tokens > self.window:
            raise ContextLengthError(len(prompt_ids), max_tokens, self.window)
        if self.full or (reject_if_busy and self.busy):
            raise CapacityError("256 requests are waiting, the most that are allowed")
        words = [self._words[token_id] for token_id in prompt_ids]
        self.submitted.append((" ".join(words), params, tuple(adapters), tuple(stop)))
        self.priorities.append(priority)
        self.forms.append(form)
        self.salts.append(cache_salt)
        completion = _completion_of(words)
        if adapters and _OPEN not in words:
            completion.insert(0, f"[{' '.join(map(_shown, adapters))}] ")
        scores = None if params.prompt_logprobs is None else fake_scores(prompt_ids, params.prompt_logprobs)
        return FakeRequestHandle(self, completion, len(prompt_ids), max_tokens, params.logprobs, stop, scores)

    async def verify(self, folder: str, digest: str | None = None) -> VerifiedAdapter:
        self.verification_begun.set()
        await asyncio.to_thread(self.verification_may_end.wait, DEADLINE_S)
        if self.verification_error is not None:
            raise self.verification_error
        verified = await asyncio.to_thread(verified_by_reading, folder, self.config)
        assert digest in (None, verified.digest), "a caller who names a digest knows the adapter"
        return verified

    async def status(self) -> EngineStatus:
        """Requests that run, all on the base; nothing is in memory. Raises EngineDeadError if it is not ready."""
        if not self.ready:
            raise EngineDeadError("the engine is being started")
        idle: dict[str, Any] = dict.fromkeys(EngineStatus.__struct_fields__, 0) | {"adapters": []}
        return msgspec.convert(idle | {"running": self.num_open, "running_on_base": self.num_open}, EngineStatus)

    async def close(self) -> None:
        self.closed = True

    def _ids(self, text: str) -> list[int]:
        words = _words_of(text)
        start = len(self._words)
        self._words += words
        return list(range(start, start + len(words)))


def verified_by_reading(folder: str, config: ModelConfig) -> VerifiedAdapter:
    """The adapter's true digest and size, and made-up changes of logits. Raises AdapterError for bad files."""
    adapter = read_peft_adapter(Path(folder), config, AdapterLimits())
    verification = Verification(
        num_modules=adapter.num_modules,
        rank=adapter.rank,
        scalable=adapter.tensors.is_sum,
        largest_change=0.5,
        mean_change=0.25,
        agreement=1.0,
        num_tokens=16,
        seconds=0.125,
    )
    return VerifiedAdapter(adapter.digest, msgspec.structs.replace(verification, notes=adapter.notes))


def _shown(adapter: ScaledAdapter) -> str:
    return adapter.ref.digest[:8] + ("" if adapter.scale == 1 else f"*{adapter.scale:g}")


def _words_of(text: str) -> list[str]:
    """The text's words. Words between <answer> and </answer> keep the space before them."""
    before, opened, rest = text.partition(_OPEN)
    literal, closed, after = rest.partition(_CLOSE)
    if not closed:
        return text.split()
    return [*before.split(), opened, *re.findall(r"\s*\S+", literal), closed, *after.split()]


def _completion_of(words: list[str]) -> list[str]:
    if _OPEN in words:
        return words[words.index(_OPEN) + 1 : words.index(_CLOSE)]
    return [word if number == 0 else f" {word}" for number, word in enumerate(reversed(words))]
