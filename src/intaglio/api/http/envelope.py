"""The envelope around every native response: result, success, errors, messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.responses import Response

from intaglio.api.http.wire import Count

IGNORED_CODE = 5006  # of a field that was not used
NOTE_CODE = 5025  # the code that the same fault has where it refuses the request
NoItems = Annotated[list[Any], Meta(max_length=0)]


class JsonResponse(Response):
    """A JSON body, encoded by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


class PageInfo(Struct, frozen=True):
    """Which page of a list a response is, and of how many entries."""

    page: Count
    per_page: Count
    count: Count
    total_count: Count


class Envelope(Struct, frozen=True):
    """messages: `{code, message}` each. result_info is sent with the page of a list only."""

    result: Any
    success: Literal[True]
    errors: NoItems
    messages: list[dict[str, Any]]
    result_info: PageInfo | UnsetType = UNSET


def success(
    result: Any,
    *,
    headers: Mapping[str, str] | None = None,
    result_info: PageInfo | UnsetType = UNSET,
    notes: Sequence[str] = (),
    ignored: Sequence[str] = (),
) -> JsonResponse:
    """200 with `result` in the envelope. notes, ignored: sentences for its `messages`."""
    messages = [{"code": NOTE_CODE, "message": note} for note in notes]
    messages += [{"code": IGNORED_CODE, "message": sentence} for sentence in ignored]
    return JsonResponse(Envelope(result, True, [], messages, result_info), headers=headers)


def envelope_schema(result: Mapping[str, Any], *, is_page: bool = False) -> dict[str, Any]:
    """The JSON schema of the envelope around a result. is_page: it has a `result_info`."""
    found = msgspec.json.schema_components((Envelope, PageInfo), ref_template="{name}")[1]
    schema, page = found["Envelope"], found["PageInfo"]
    fields = {**schema["properties"], "result": dict(result)}
    required = [*schema["required"]]
    if is_page:
        fields["result_info"] = {name: page[name] for name in ("type", "properties", "required")}
        required.append("result_info")
    else:
        del fields["result_info"]
    return {"type": "object", "properties": fields, "required": required}
