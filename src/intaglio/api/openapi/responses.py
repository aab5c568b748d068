"""The operations of OpenAI's Responses API."""

from __future__ import annotations

from typing import Any

from intaglio.api.http.errors import REQUEST_ID_HEADER, VERSION_HEADER
from intaglio.api.http.wire import component_schemas
from intaglio.api.openapi.error_groups import IN_AN_ACCOUNT, OF_A_READ, OF_A_RUN
from intaglio.api.openapi.failures import Failures
from intaglio.api.openapi.operation import EVENTS as EVENT_STREAM
from intaglio.api.openapi.operation import JSON, DeclaredResponse, Operation
from intaglio.api.openapi.shapes import ACCOUNT, TEXT, as_sent, parameter, ref
from intaglio.api.openapi.streams import named_event_stream
from intaglio.api.responses.input_items import DEFAULT_ITEMS, MAX_ITEMS, ORDERS
from intaglio.api.responses.schema import responses_check
from intaglio.api.responses.shapes import EVENTS, SHAPES
from intaglio.errors import BadInputError, ResponseNotFoundError, StorageFullError

TAG = "OpenAI-compatible"

_LORA = parameter("lora", "query", TEXT, "An adapter, as `lora` in the body.")
_ID = parameter("response_id", "path", {"type": "string", "minLength": 1}, "The id of a stored response.")
_PAGE = (
    parameter("order", "query", {"type": "string", "enum": list(ORDERS), "default": "desc"}, "By place."),
    parameter("after", "query", TEXT, "The id of the item before the page."),
    parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": MAX_ITEMS, "default": DEFAULT_ITEMS}),
)
_RUN_HEADERS = {REQUEST_ID_HEADER: "The request's id, in the log too.", VERSION_HEADER: "This server's version."}
_OF_ONE = (*IN_AN_ACCOUNT, *OF_A_READ, ResponseNotFoundError)


def response_schemas(model: str) -> dict[str, Any]:
    """model: one for the examples."""
    return {
        "ResponseInput": as_sent(responses_check(), model),
        **component_schemas(SHAPES),
        "ResponseEvent": {"anyOf": [ref(event.__name__) for event in EVENTS]},
    }


def response_operations() -> dict[str, Operation]:
    says = "The last one has the whole response; a failure after the first is told in `response.failed`."
    created = {JSON: ref("ResponseObject"), EVENT_STREAM: named_event_stream(says, ref("ResponseEvent"))}
    return {
        "create_response": Operation(
            TAG, "Create a response",
            "`model` is a base, a base and an adapter as `<base>:<name or id>`, or an adapter's name or id alone. "
            "The response is stored unless `store` is false; `previous_response_id` continues a stored one.",
            {200: DeclaredResponse("The bare response.", created, _RUN_HEADERS)},
            parameters=(ACCOUNT, _LORA), body={JSON: ref("ResponseInput")},
            errors=(*IN_AN_ACCOUNT, *OF_A_RUN, ResponseNotFoundError, StorageFullError), failures=Failures.OPENAI,
        ),
        "read_response": Operation(
            TAG, "Read a response", "As it was sent when it ended.",
            {200: DeclaredResponse("The response.", {JSON: ref("ResponseObject")})},
            parameters=(ACCOUNT, _ID), errors=(*_OF_ONE, BadInputError), failures=Failures.OPENAI,
        ),
        "list_input_items": Operation(
            TAG, "List the input of a response", "What it was asked, and the conversation that it continued, as items.",
            {200: DeclaredResponse("One page.", {JSON: ref("InputItems")})},
            parameters=(ACCOUNT, _ID, *_PAGE), errors=(*_OF_ONE, BadInputError), failures=Failures.OPENAI,
        ),
        "delete_response": Operation(
            TAG, "Delete a response", "It can no longer be read or continued; those that continued it stay.",
            {200: DeclaredResponse("What is gone.", {JSON: ref("DeletedResponse")})},
            parameters=(ACCOUNT, _ID), errors=(*_OF_ONE, StorageFullError), failures=Failures.OPENAI,
        ),
    }  # fmt: skip
