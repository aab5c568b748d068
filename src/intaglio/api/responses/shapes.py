"""What the Responses routes send: one declaration per shape, from which response and OpenAPI document are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from intaglio.api.http.wire import Count
from intaglio.api.openai.responses import ChatToken

Status = Annotated[str, Meta(extra_json_schema={"enum": ["in_progress", "completed", "incomplete", "failed"]})]
NoItems = Annotated[Sequence[Any], Meta(max_length=0)]


class OutputText(Struct, frozen=True, tag_field="type", tag="output_text"):
    text: str
    annotations: NoItems = ()
    logprobs: Sequence[ChatToken] = ()


class OutputMessage(Struct, frozen=True, tag_field="type", tag="message"):
    id: str
    status: Status
    role: Literal["assistant"]
    content: Sequence[OutputText]


class FunctionCallItem(Struct, frozen=True, tag_field="type", tag="function_call"):
    """A call of a tool. arguments: JSON as a text."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: Status


Item = OutputMessage | FunctionCallItem


class CachedTokens(Struct, frozen=True):
    cached_tokens: Count


class ReasoningTokens(Struct, frozen=True):
    reasoning_tokens: Count


class ResponseUsage(Struct, frozen=True):
    input_tokens: Count
    input_tokens_details: CachedTokens
    output_tokens: Count
    output_tokens_details: ReasoningTokens
    total_tokens: Count


class Incomplete(Struct, frozen=True):
    reason: Literal["max_output_tokens"]


class ResponseError(Struct, frozen=True):
    """What ended a stream early."""

    code: Literal["server_error", "invalid_prompt"]
    message: str


class ResponseObject(Struct, frozen=True, kw_only=True):
    """A response. Fields of the request are repeated as they were sent, with null for those that were not."""

    id: str
    object: Literal["response"] = "response"
    created_at: Count
    completed_at: Count | None
    status: Status
    background: bool = False
    error: ResponseError | None = None
    incomplete_details: Incomplete | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: Sequence[Item]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, None]
    safety_identifier: str | None
    service_tier: str = "default"
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: Sequence[dict[str, Any]]
    top_logprobs: int
    top_p: float | None
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None
    user: str | None
    metadata: Mapping[str, str]


class DeletedResponse(Struct, frozen=True):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputText(Struct, frozen=True, tag_field="type", tag="input_text"):
    text: str


class InputMessage(Struct, frozen=True, tag_field="type", tag="message"):
    """A message of the input; of the assistant if an earlier response wrote it."""

    id: str
    status: Status
    role: Literal["user", "assistant", "system"]
    content: Sequence[InputText | OutputText]


class FunctionOutputItem(Struct, frozen=True, tag_field="type", tag="function_call_output"):
    """The result of a call."""

    id: str
    call_id: str
    output: str
    status: Status


InputItem = InputMessage | FunctionCallItem | FunctionOutputItem


class InputItems(Struct, frozen=True):
    """One page. first_id and last_id are null where it is empty."""

    object: Literal["list"]
    data: Sequence[InputItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class _Event(Struct, frozen=True, kw_only=True, tag_field="type"):
    sequence_number: Count


class Created(_Event, frozen=True, kw_only=True, tag="response.created"):
    response: ResponseObject


class InProgress(_Event, frozen=True, kw_only=True, tag="response.in_progress"):
    response: ResponseObject


class ItemAdded(_Event, frozen=True, kw_only=True, tag="response.output_item.added"):
    output_index: Count
    item: Item


class PartAdded(_Event, frozen=True, kw_only=True, tag="response.content_part.added"):
    item_id: str
    output_index: Count
    content_index: Count
    part: OutputText


class OutputTextPiece(_Event, frozen=True, kw_only=True, tag="response.output_text.delta"):
    item_id: str
    output_index: Count
    content_index: Count
    delta: str
    logprobs: Sequence[ChatToken] = ()


class TextDone(_Event, frozen=True, kw_only=True, tag="response.output_text.done"):
    item_id: str
    output_index: Count
    content_index: Count
    text: str
    logprobs: Sequence[ChatToken] = ()


class PartDone(_Event, frozen=True, kw_only=True, tag="response.content_part.done"):
    item_id: str
    output_index: Count
    content_index: Count
    part: OutputText


class ArgumentsPiece(_Event, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"):
    item_id: str
    output_index: Count
    delta: str


class ArgumentsDone(_Event, frozen=True, kw_only=True, tag="response.function_call_arguments.done"):
    item_id: str
    output_index: Count
    name: str
    arguments: str


class ItemDone(_Event, frozen=True, kw_only=True, tag="response.output_item.done"):
    output_index: Count
    item: Item


class Completed(_Event, frozen=True, kw_only=True, tag="response.completed"):
    response: ResponseObject


class Cut(_Event, frozen=True, kw_only=True, tag="response.incomplete"):
    """max_output_tokens ended the response."""

    response: ResponseObject


class Failed(_Event, frozen=True, kw_only=True, tag="response.failed"):
    response: ResponseObject


EVENTS = (
    Created, InProgress, ItemAdded, PartAdded, OutputTextPiece, TextDone, PartDone, ArgumentsPiece, ArgumentsDone,
    ItemDone, Completed, Cut, Failed,
)  # fmt: skip
SHAPES = (ResponseObject, DeletedResponse, InputItems, *EVENTS)
