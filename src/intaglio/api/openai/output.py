"""Responses in OpenAI's form: chat completions and completions, whole or in chunks."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal
from uuid import uuid4

import msgspec
from msgspec import UNSET, Struct, UnsetType

from intaglio.api.inference.results import Usage
from intaglio.api.openai.choice_reader import ChoiceDelta
from intaglio.api.openai.logprobs import TextOffsets, chat_logprobs, text_logprobs
from intaglio.api.openai.responses import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatMessage,
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionChunkChoice,
    FunctionCall,
    PromptTokens,
    TextLogprobs,
    ToolCallObject,
    ToolCallPiece,
)
from intaglio.text.tools import ToolCall


class ResponseForm(ABC):
    """How one route writes its choices. One object per request: it knows which of them have begun.

    with_logprobs  the caller asked for them
    """

    id_prefix: str

    def __init__(self, request_id: str, model: str, *, with_logprobs: bool) -> None:
        self.with_logprobs = with_logprobs
        self._id = f"{self.id_prefix}-{request_id}"
        self._created = int(time.time())
        self._model = model

    @abstractmethod
    def whole(self, choices: Sequence[Any], usage: Usage) -> Struct:
        """A response that is not a stream."""

    @abstractmethod
    def chunk(self, choices: Sequence[Any], usage: Usage | None = None) -> Struct:
        """One chunk of a stream."""

    @abstractmethod
    def choice(self, index: int, choice: ChoiceDelta) -> Struct:
        """A whole choice."""

    @abstractmethod
    def piece(self, index: int, choice: ChoiceDelta) -> Struct:
        """A choice that goes on, in a chunk."""

    @abstractmethod
    def last(self, index: int, reason: str) -> Struct:
        """The end of a choice, in a chunk."""


class ChatForm(ResponseForm):
    """/chat/completions."""

    id_prefix = "chatcmpl"

    def __init__(self, request_id: str, model: str, *, with_logprobs: bool) -> None:
        super().__init__(request_id, model, with_logprobs=with_logprobs)
        self._begun: set[int] = set()
        self._scored: PromptTokens | UnsetType = UNSET  # of the one prompt that all choices have

    def whole(self, choices: Sequence[ChatChoice], usage: Usage) -> ChatCompletion:
        return ChatCompletion(self._id, "chat.completion", self._created, self._model, choices, usage, self._scored)

    def chunk(self, choices: Sequence[ChatChunkChoice], usage: Usage | None = None) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            self._id, "chat.completion.chunk", self._created, self._model, choices, UNSET if usage is None else usage
        )

    def choice(self, index: int, choice: ChoiceDelta) -> ChatChoice:
        assert choice.reason is not None, "a whole choice has ended"
        self._scored = _prompt_logprobs(choice)
        if choice.calls:
            message = ChatMessage("assistant", None, [_tool_call(call) for call in choice.calls])
        else:
            message = ChatMessage("assistant", choice.text)
        logprobs = chat_logprobs(choice.tokens) if self.with_logprobs else None
        return ChatChoice(index, message, logprobs, choice.reason)

    def piece(self, index: int, choice: ChoiceDelta) -> ChatChunkChoice:
        role = self._opening(index)
        if choice.calls:
            delta = ChatDelta(role, tool_calls=[_call_piece(*numbered) for numbered in enumerate(choice.calls)])
        else:
            delta = ChatDelta(role, choice.text)
        logprobs = chat_logprobs(choice.tokens) if self.with_logprobs else UNSET
        return ChatChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=choice.reason)

    def last(self, index: int, reason: str) -> ChatChunkChoice:
        role = self._opening(index)
        delta = ChatDelta() if role is UNSET else ChatDelta(role, "")
        return ChatChunkChoice(index=index, delta=delta, finish_reason=reason)

    def _opening(self, index: int) -> Literal["assistant"] | UnsetType:
        """The role, in the first delta of a choice only."""
        if index in self._begun:
            return UNSET
        self._begun.add(index)
        return "assistant"


class TextForm(ResponseForm):
    """/completions."""

    id_prefix = "cmpl"

    def __init__(self, request_id: str, model: str, *, with_logprobs: bool) -> None:
        super().__init__(request_id, model, with_logprobs=with_logprobs)
        self._offsets: defaultdict[int, TextOffsets] = defaultdict(TextOffsets)

    def whole(self, choices: Sequence[CompletionChoice], usage: Usage) -> Completion:
        return Completion(self._id, "text_completion", self._created, self._model, choices, usage)

    def chunk(self, choices: Sequence[CompletionChunkChoice], usage: Usage | None = None) -> CompletionChunk:
        return CompletionChunk(
            self._id, "text_completion", self._created, self._model, choices, UNSET if usage is None else usage
        )

    def choice(self, index: int, choice: ChoiceDelta) -> CompletionChoice:
        assert choice.reason is not None, "a whole choice has ended"
        return CompletionChoice(
            index, choice.text, self._logprobs(index, choice), choice.reason, _prompt_logprobs(choice)
        )

    def piece(self, index: int, choice: ChoiceDelta) -> CompletionChunkChoice:
        return CompletionChunkChoice(index, choice.text, self._logprobs(index, choice), choice.reason)

    def last(self, index: int, reason: str) -> CompletionChunkChoice:
        return CompletionChunkChoice(index, "", None, reason)

    def _logprobs(self, index: int, choice: ChoiceDelta) -> TextLogprobs | None:
        if not self.with_logprobs:
            return None
        offsets = self._offsets[index]
        if choice.prompt is None or choice.prompt.prompt.echoed is None:
            return text_logprobs(choice.tokens, offsets)
        return choice.prompt.echo(offsets).joined(text_logprobs(choice.tokens, offsets))


def _prompt_logprobs(choice: ChoiceDelta) -> PromptTokens | UnsetType:
    """The scores of a choice's prompt in vLLM's form, if they were asked for in it."""
    return UNSET if choice.prompt is None or choice.prompt.prompt.num_by_id is None else choice.prompt.by_id()


def _tool_call(call: ToolCall) -> ToolCallObject:
    return ToolCallObject(f"call_{uuid4().hex}", "function", _function(call))


def _call_piece(index: int, call: ToolCall) -> ToolCallPiece:
    return ToolCallPiece(index, f"call_{uuid4().hex}", "function", _function(call))


def _function(call: ToolCall) -> FunctionCall:
    """A call as OpenAI writes it: the arguments are a text that holds JSON."""
    return FunctionCall(call.name, msgspec.json.encode(call.arguments).decode())
