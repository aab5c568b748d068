"""Responses in the form of OpenAI's Responses API, and what is stored of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec

from intaglio.api.inference.results import Usage
from intaglio.api.openai.choice_reader import ChoiceDelta
from intaglio.api.openai.logprobs import chat_logprobs
from intaglio.api.responses.shapes import (
    CachedTokens,
    FunctionCallItem,
    Incomplete,
    Item,
    OutputMessage,
    OutputText,
    ReasoningTokens,
    ResponseError,
    ResponseObject,
    ResponseUsage,
)
from intaglio.request import SamplingParams
from intaglio.text.tools import ToolCall

# Fields of the request that the response repeats; null where they were not sent.
_REPEATED = (
    "instructions", "max_output_tokens", "max_tool_calls", "previous_response_id", "prompt_cache_key",
    "safety_identifier", "user",
)  # fmt: skip


class ResponseForm:
    """The shapes of one response. One object per request: it has the ids of its items.

    body        of the request, as its check gives it
    message_id  of the item of a text
    """

    def __init__(self, request_id: str, body: Mapping[str, Any], params: SamplingParams) -> None:
        self.id = f"resp_{request_id.replace('-', '')}"
        self.is_stored: bool = body.get("store", True)
        self.message_id = f"msg_{uuid4().hex}"
        self._created = int(time.time())
        self._body = body
        self._params = params

    def message(self, choice: ChoiceDelta) -> OutputMessage:
        """The item of a whole text."""
        status = "incomplete" if choice.reason == "length" else "completed"
        return OutputMessage(self.message_id, status, "assistant", [output_text(choice)])

    def opened_message(self) -> OutputMessage:
        """The item of a text that has not begun."""
        return OutputMessage(self.message_id, "in_progress", "assistant", [])

    def items(self, choice: ChoiceDelta) -> list[Item]:
        """The items of a whole choice: its calls, or its text."""
        if choice.calls:
            return [call_item(call) for call in choice.calls]
        return [self.message(choice)]

    def begun(self) -> ResponseObject:
        """The response before its first item."""
        return self._object("in_progress", [])

    def ended(self, items: Sequence[Item], choice: ChoiceDelta, usage: Usage) -> ResponseObject:
        """The response with all its items."""
        if choice.reason == "length":
            return self._object("incomplete", items, usage=usage, incomplete=Incomplete("max_output_tokens"))
        return self._object("completed", items, usage=usage)

    def failed(self, message: str) -> ResponseObject:
        """The response of a stream that an error ended."""
        return self._object("failed", [], error=ResponseError("server_error", message))

    def _object(
        self,
        status: str,
        items: Sequence[Item],
        *,
        usage: Usage | None = None,
        incomplete: Incomplete | None = None,
        error: ResponseError | None = None,
    ) -> ResponseObject:
        body = self._body
        repeated: dict[str, Any] = {name: body.get(name) for name in _REPEATED}
        return ResponseObject(
            id=self.id,
            created_at=self._created,
            completed_at=int(time.time()) if status == "completed" else None,
            status=status,
            error=error,
            incomplete_details=incomplete,
            model=body["model"],
            output=items,
            parallel_tool_calls=body.get("parallel_tool_calls", True),
            reasoning={"effort": None, "summary": None},
            store=self.is_stored,
            temperature=self._params.temperature,
            text={"format": {"type": "text"}, **body.get("text", {})},
            tool_choice=body.get("tool_choice", "auto"),
            tools=body.get("tools", []),
            top_logprobs=body.get("top_logprobs", 0),
            top_p=self._params.top_p,
            usage=None if usage is None else _usage(usage),
            metadata=body.get("metadata", {}),
            **repeated,
        )


def output_text(choice: ChoiceDelta) -> OutputText:
    """A text with the logprobs of its tokens, if those were asked for."""
    return OutputText(choice.text, logprobs=chat_logprobs(choice.tokens).content)


def call_item(call: ToolCall) -> FunctionCallItem:
    """A call of a tool as an item, with ids of its own."""
    arguments = msgspec.json.encode(call.arguments).decode()
    return FunctionCallItem(f"fc_{uuid4().hex}", f"call_{uuid4().hex}", call.name, arguments, "completed")


def output_message(items: Sequence[Item]) -> dict[str, Any]:
    """Items of a response as the message of a chat completion that continues it."""
    calls = [
        {"id": one.call_id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
        for one in items
        if isinstance(one, FunctionCallItem)
    ]
    texts = [part.text for one in items if isinstance(one, OutputMessage) for part in one.content]
    if calls:
        return {"role": "assistant", "content": None, "tool_calls": calls}
    return {"role": "assistant", "content": "".join(texts)}


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        usage.prompt_tokens,
        CachedTokens(usage.prompt_tokens_details.cached_tokens),
        usage.completion_tokens,
        ReasoningTokens(0),
        usage.total_tokens,
    )
