"""A model with a rule instead of weights: it answers with the prompt's words in reverse order, one per delta.

It has the shape of AsyncLLM as the API sees it, so tests of the wire need no engine. Words in the prompt steer it:

    <stall>   after the words behind it nothing comes, for ever
    <fail>    after the words behind it the generation ends with an error
    <crash>   after the words behind it the iterator raises what nobody foresaw
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from intaglio.errors import CapacityError, ContextLengthError
from intaglio.generation import TextDelta, Usage
from intaglio.lora.packed import PackedAdapters
from intaglio.model.config import ModelConfig
from intaglio.request import AdapterRef, FinishReason, SamplingParams


class FakeGeneration:
    """Yields words; knows whether it was aborted."""

    def __init__(self, llm: FakeLLM, words: list[str], num_prompt_tokens: int, max_tokens: int) -> None:
        self._llm = llm
        self._words = words
        self._num_prompt_tokens = num_prompt_tokens
        self._max_tokens = max_tokens
        self._ended = False

    async def __aiter__(self) -> AsyncIterator[TextDelta]:
        given = self._words[: self._max_tokens]
        for number, word in enumerate(given):
            if word == "<stall>":
                self._llm.stalled.set()
                await asyncio.Event().wait()
            if word == "<crash>":
                raise ZeroDivisionError("nobody foresaw this")
            if word == "<fail>":
                self._ended = True
                yield TextDelta("", FinishReason.ERROR, self._usage(number), "the engine process ended")
                return
            yield TextDelta(word if number == 0 else f" {word}")
        self._ended = True
        reason = FinishReason.LENGTH if len(given) < len(self._words) else FinishReason.STOP
        yield TextDelta("", reason, self._usage(len(given)))

    async def abort(self) -> None:
        if not self._ended:
            self._ended = True
            self._llm.aborted.set()

    def _usage(self, completion_tokens: int) -> Usage:
        return Usage(self._num_prompt_tokens, completion_tokens, cached_tokens=1)


class FakeLLM:
    """One fake base. `submitted` keeps what reached it; `full` makes it refuse with CapacityError."""

    def __init__(self, model_id: str, config: ModelConfig, packed: PackedAdapters, window: int = 1000) -> None:
        self.model_id = model_id
        self.config = config
        self.packed = packed
        self.window = window
        self.ready = True
        self.full = False
        self.closed = False
        self.submitted: list[tuple[str, SamplingParams, AdapterRef | None, tuple[str, ...]]] = []
        self.stalled = threading.Event()
        self.aborted = threading.Event()
        self._words: list[str] = []

    def render_prompt(self, prompt: str, *, raw: bool) -> list[int]:
        return self._ids(prompt if raw else f"user: {prompt} model:")

    def render_messages(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        return self._ids(" ".join(f"{message['role']}: {message['content']}" for message in messages))

    async def submit(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        *,
        adapter: AdapterRef | None = None,
        stop: Sequence[str] = (),
    ) -> FakeGeneration:
        if len(prompt_ids) + params.max_tokens > self.window:
            raise ContextLengthError(len(prompt_ids), params.max_tokens, self.window)
        if self.full:
            raise CapacityError("256 requests are waiting, the most that are allowed")
        words = [self._words[token_id] for token_id in prompt_ids]
        self.submitted.append((" ".join(words), params, adapter, tuple(stop)))
        answer = list(reversed(words))
        if adapter is not None:
            answer.insert(0, f"[{adapter.digest[:8]}]")
        return FakeGeneration(self, answer, len(prompt_ids), params.max_tokens)

    async def close(self) -> None:
        self.closed = True

    def _ids(self, text: str) -> list[int]:
        words = text.split()
        start = len(self._words)
        self._words += words
        return list(range(start, start + len(words)))
