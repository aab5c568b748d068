"""Responses in OpenAI's form: chat completions and completions, whole or in chunks."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import msgspec

from intaglio.api.inference.results import Usage
from intaglio.api.openai.choice_reader import ChoiceDelta
from intaglio.api.openai.logprobs import TextOffsets, chat_logprobs, text_logprobs
from intaglio.text.tools import ToolCall


class ResponseForm(ABC):
    """How one route writes its choices. One object per request: it knows which of them have begun.

    with_logprobs  the caller asked for them
    """

    kind: str  # `object` of a response that is not a stream
    chunk_kind: str  # `object` of a chunk
    id_prefix: str

    def __init__(self, request_id: str, model: str, *, with_logprobs: bool) -> None:
        self.with_logprobs = with_logprobs
        self._id = f"{self.id_prefix}-{request_id}"
        self._rest = {"created": int(time.time()), "model": model}

    def whole(self, choices: Sequence[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        """The body of a response that is not a stream."""
        return {"id": self._id, "object": self.kind, **self._rest, "choices": choices, "usage": usage}

    def chunk(self, choices: Sequence[dict[str, Any]], usage: Usage | None = None) -> dict[str, Any]:
        """One chunk of a stream. `usage` is left out rather than null: some clients stumble over that."""
        body = {"id": self._id, "object": self.chunk_kind, **self._rest, "choices": choices}
        return body if usage is None else {**body, "usage": usage}

    @abstractmethod
    def choice(self, index: int, choice: ChoiceDelta) -> dict[str, Any]:
        """A whole choice."""

    @abstractmethod
    def piece(self, index: int, choice: ChoiceDelta) -> dict[str, Any]:
        """A choice that goes on, in a chunk."""

    @abstractmethod
    def last(self, index: int, reason: str) -> dict[str, Any]:
        """The end of a choice, in a chunk."""


class ChatForm(ResponseForm):
    """/chat/completions."""

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    id_prefix = "chatcmpl"

    def __init__(self, request_id: str, model: str, *, with_logprobs: bool) -> None:
        super().__init__(request_id, model, with_logprobs=with_logprobs)
        self._begun: set[int] = set()

    def choice(self, index: int, choice: ChoiceDelta) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": choice.text}
        if choice.calls:
            message |= {"content": None, "tool_calls": [_call_json(call) for call in choice.calls]}
        return {
            "index": index,
            "message": message,
            "logprobs": chat_logprobs(choice.tokens) if self.with_logprobs else None,
            "finish_reason": choice.reason,
        }

    def piece(self, index: int, choice: ChoiceDelta) -> dict[str, Any]:
        delta: dict[str, Any] = {**self._opening(index)}
        if choice.calls:
            delta["tool_calls"] = [{"index": number, **_call_json(call)} for number, call in enumerate(choice.calls)]
        else:
            delta["content"] = choice.text
        logprobs = {"logprobs": chat_logprobs(choice.tokens)} if self.with_logprobs else {}
        return {"index": index, "delta": delta, **logprobs, "finish_reason": choice.reason}

    def last(self, index: int, reason: str) -> dict[str, Any]:
        role = self._opening(index)
        delta = {**role, "content": ""} if role else {}
        return {"index": index, "delta": delta, "finish_reason": reason}

    def _opening(self, index: int) -> dict[str, str]:
        """The first delta of a choice names the role, no other does."""
        if index in self._begun:
            return {}
        self._begun.add(index)
        return {"role": "assistant"}


class TextForm(ResponseForm):
    """/completions."""

    kind = "text_completion"
    chunk_kind = "text_completion"
    id_prefix = "cmpl"

    def __init__(self, request_id: str, model: str, *, with_logprobs: bool) -> None:
        super().__init__(request_id, model, with_logprobs=with_logprobs)
        self._offsets: defaultdict[int, TextOffsets] = defaultdict(TextOffsets)

    def choice(self, index: int, choice: ChoiceDelta) -> dict[str, Any]:
        logprobs = text_logprobs(choice.tokens, self._offsets[index]) if self.with_logprobs else None
        return {"index": index, "text": choice.text, "logprobs": logprobs, "finish_reason": choice.reason}

    def piece(self, index: int, choice: ChoiceDelta) -> dict[str, Any]:
        return self.choice(index, choice)

    def last(self, index: int, reason: str) -> dict[str, Any]:
        return {"index": index, "text": "", "logprobs": None, "finish_reason": reason}


def _call_json(call: ToolCall) -> dict[str, Any]:
    """A call as OpenAI writes it: the arguments are a text that holds JSON."""
    arguments = msgspec.json.encode(call.arguments).decode()
    return {"id": f"call_{uuid4().hex}", "type": "function", "function": {"name": call.name, "arguments": arguments}}
