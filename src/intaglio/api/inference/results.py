"""What the native routes send: one declaration per shape, from which the response and the OpenAPI document are made.

A field that is UNSET is left out. Fields are written in the order of their declaration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from intaglio.api.http.errors import ErrorItem
from intaglio.api.http.wire import Count
from intaglio.text.tools import ToolCall

Text = Annotated[str, Meta(description="the next piece of the completion")]
Padding = Annotated[str, Meta(description="padding, so that packet sizes do not reveal the words")]
LastReason = Annotated[
    str,
    Meta(description="in the last event only", extra_json_schema={"enum": ["stop", "length", "tool_calls", "error"]}),
]
LastErrors = Annotated[list[ErrorItem], Meta(description="the error that ended the completion; no event follows")]
BatchStatus = Annotated[str, Meta(extra_json_schema={"enum": ["queued", "running"]})]


class PromptTokensDetails(Struct, frozen=True):
    cached_tokens: Count


class Usage(Struct, frozen=True):
    """The tokens of a request or a batch, on every route."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptTokensDetails


class RunResult(Struct, frozen=True, kw_only=True):
    """`result` of a run. Its schema in the document is Cloudflare's published one."""

    response: Any
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET
    usage: Usage
    finish_reason: str


class IndexedToolCall(Struct, frozen=True):
    index: Count
    name: str
    arguments: Mapping[str, Any]


class RunEvent(Struct, frozen=True, kw_only=True):
    """One event of a stream."""

    response: Text
    p: Padding | UnsetType = UNSET
    tool_calls: list[IndexedToolCall] | UnsetType = UNSET
    usage: Usage | UnsetType = UNSET
    errors: LastErrors | UnsetType = UNSET
    finish_reason: LastReason | UnsetType = UNSET


class BatchProgress(Struct, frozen=True):
    status: BatchStatus
    request_id: str
    model: str
    completed: Count | UnsetType = UNSET
    total: Count | UnsetType = UNSET


class BatchAnswer(Struct, frozen=True):
    """An item that has a result."""

    id: Count
    result: RunResult
    success: Literal[True]
    external_reference: str | None


class BatchFailure(Struct, frozen=True):
    """An item that failed."""

    id: Count
    result: Annotated[dict[str, Any], Meta(max_length=0)]
    success: Literal[False]
    errors: list[ErrorItem]
    external_reference: str | None


_ITEM_FORMS = [{"$ref": f"#/components/schemas/{form.__name__}"} for form in (BatchAnswer, BatchFailure)]
EncodedItem = Annotated[Raw, Meta(extra_json_schema={"anyOf": _ITEM_FORMS})]


class BatchResult(Struct, frozen=True):
    """All items of a batch, in their order; each was encoded when it ended."""

    responses: Sequence[EncodedItem]
    usage: Usage


def usage_shape(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> Usage:
    """Usage from the three counts that the engine gives."""
    total = prompt_tokens + completion_tokens
    return Usage(prompt_tokens, completion_tokens, total, PromptTokensDetails(cached_tokens))


def tool_calls_json(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Tool calls in the native form: arguments are an object, not a text."""
    return [{"name": call.name, "arguments": call.arguments} for call in calls]
