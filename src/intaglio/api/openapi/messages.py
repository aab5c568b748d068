"""The operations of Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

from intaglio.api.http.errors import REQUEST_ID_HEADER, VERSION_HEADER
from intaglio.api.http.wire import component_schemas
from intaglio.api.messages.output import EVENTS, SHAPES
from intaglio.api.messages.schema import count_check, messages_check
from intaglio.api.openapi.error_groups import IN_AN_ACCOUNT, OF_A_RUN
from intaglio.api.openapi.failures import Failures
from intaglio.api.openapi.operation import EVENTS as EVENT_STREAM
from intaglio.api.openapi.operation import JSON, DeclaredResponse, Operation
from intaglio.api.openapi.shapes import ACCOUNT, TEXT, as_sent, parameter, ref
from intaglio.api.openapi.streams import named_event_stream

TAG = "Anthropic-compatible"

_LORA = parameter("lora", "query", TEXT, "An adapter, as `lora` in the body.")
_RUN_HEADERS = {REQUEST_ID_HEADER: "The request's id, in the log too.", VERSION_HEADER: "This server's version."}
_ERRORS = (*IN_AN_ACCOUNT, *OF_A_RUN)


def message_schemas(model: str) -> dict[str, Any]:
    """model: one for the examples."""
    events = [ref(event.__name__) for event in EVENTS]
    return {
        "MessageInput": as_sent(messages_check(), model),
        "MessageCountInput": as_sent(count_check(), model),
        **component_schemas(SHAPES),
        "MessageEvent": {"anyOf": [*events, ref("AnthropicErrorEvent")]},
    }


def message_operations() -> dict[str, Operation]:
    says = "A failure after the first one is told in an event `error`, the last."
    events = named_event_stream(says, ref("MessageEvent"))
    return {
        "create_message": Operation(
            TAG, "Create a message",
            "`model` is a base, a base and an adapter as `<base>:<name or id>`, or an adapter's name or id alone.",
            {200: DeclaredResponse("The bare message.", {JSON: ref("Message"), EVENT_STREAM: events}, _RUN_HEADERS)},
            parameters=(ACCOUNT, _LORA), body={JSON: ref("MessageInput")}, errors=_ERRORS,
            failures=Failures.ANTHROPIC,
        ),
        "count_message_tokens": Operation(
            TAG, "Count the tokens of a message", "Those of the prompt that the message would become.",
            {200: DeclaredResponse("The count.", {JSON: ref("MessageTokens")})},
            parameters=(ACCOUNT, _LORA), body={JSON: ref("MessageCountInput")}, errors=_ERRORS,
            failures=Failures.ANTHROPIC,
        ),
    }  # fmt: skip
