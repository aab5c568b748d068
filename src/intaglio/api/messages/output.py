"""What the Messages routes send: one declaration per shape, from which response and OpenAPI document are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from uuid import uuid4

from msgspec import Meta, Struct

from intaglio.api.http.wire import Count
from intaglio.api.inference.results import Usage
from intaglio.api.inference.running_request import TOOL_CALLS
from intaglio.api.openai.choice_reader import ChoiceDelta

_REASONS = ("end_turn", "max_tokens", "stop_sequence", "tool_use")
StopReason = Annotated[str, Meta(extra_json_schema={"enum": list(_REASONS)})]


class TextBlock(Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class ToolUseBlock(Struct, frozen=True, tag_field="type", tag="tool_use"):
    """A call of a tool, with its arguments as an object."""

    id: str
    name: str
    input: Mapping[str, Any]


class MessageUsage(Struct, frozen=True):
    """input_tokens are those of the prompt that did not come from the prefix cache."""

    input_tokens: Count
    output_tokens: Count
    cache_creation_input_tokens: Count
    cache_read_input_tokens: Count


class Message(Struct, frozen=True):
    """A response, or with neither content nor a reason the beginning of a streamed one."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: Sequence[TextBlock | ToolUseBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageTokens(Struct, frozen=True):
    """How many tokens a prompt has."""

    input_tokens: Count


class TextPiece(Struct, frozen=True, tag_field="type", tag="text_delta"):
    text: str


class InputPiece(Struct, frozen=True, tag_field="type", tag="input_json_delta"):
    """Arguments as a JSON text, always complete."""

    partial_json: str


class MessageStart(Struct, frozen=True, tag_field="type", tag="message_start"):
    message: Message


class BlockStart(Struct, frozen=True, tag_field="type", tag="content_block_start"):
    index: Count
    content_block: TextBlock | ToolUseBlock


class BlockDelta(Struct, frozen=True, tag_field="type", tag="content_block_delta"):
    index: Count
    delta: TextPiece | InputPiece


class BlockStop(Struct, frozen=True, tag_field="type", tag="content_block_stop"):
    index: Count


class MessageEnd(Struct, frozen=True):
    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Struct, frozen=True, tag_field="type", tag="message_delta"):
    """The end of the completion, with the usage of the whole request."""

    delta: MessageEnd
    usage: MessageUsage


class MessageStop(Struct, frozen=True, tag_field="type", tag="message_stop"):
    """The last event."""


EVENTS = (MessageStart, BlockStart, BlockDelta, BlockStop, MessageDelta, MessageStop)
SHAPES = (Message, MessageTokens, *EVENTS)


class MessageForm:
    """The shapes of one response. One object per request."""

    def __init__(self, request_id: str, model: str) -> None:
        self._id = f"msg_{request_id}"
        self._model = model

    def whole(self, choice: ChoiceDelta, stop_sequence: str | None, usage: Usage) -> Message:
        """A response that is not a stream."""
        end = message_end(choice, stop_sequence)
        calls = [tool_use(call.name, call.arguments) for call in choice.calls]
        content: Sequence[TextBlock | ToolUseBlock] = calls or [TextBlock(choice.text)]
        return self._message(content, end.stop_reason, end.stop_sequence, message_usage(usage))

    def begin(self, num_prompt_tokens: int) -> MessageStart:
        """The first event of a stream."""
        return MessageStart(self._message([], None, None, MessageUsage(num_prompt_tokens, 0, 0, 0)))

    def _message(
        self, content: Sequence[Any], reason: str | None, stop_sequence: str | None, usage: MessageUsage
    ) -> Message:
        return Message(self._id, "message", "assistant", self._model, content, reason, stop_sequence, usage)


def message_end(choice: ChoiceDelta, stop_sequence: str | None) -> MessageEnd:
    """Why a choice ended. stop_sequence: the one that was found, if that was why."""
    if choice.reason == TOOL_CALLS:
        return MessageEnd("tool_use", None)
    if choice.reason == "length":
        return MessageEnd("max_tokens", None)
    return MessageEnd("end_turn" if stop_sequence is None else "stop_sequence", stop_sequence)


def message_usage(usage: Usage) -> MessageUsage:
    cached = usage.prompt_tokens_details.cached_tokens
    return MessageUsage(usage.prompt_tokens - cached, usage.completion_tokens, 0, cached)


def tool_use(name: str, arguments: Mapping[str, Any]) -> ToolUseBlock:
    return ToolUseBlock(f"toolu_{uuid4().hex}", name, arguments)
