"""The operations that run a model natively, also through a Worker's binding: one request, or a batch."""

from __future__ import annotations

import copy
from typing import Any

from intaglio.api.binding.forward import ACCOUNT_HEADER
from intaglio.api.binding.routes import MODEL_HEADER, VERSIONS
from intaglio.api.http.envelope import envelope_schema
from intaglio.api.http.errors import REQUEST_ID_HEADER, VERSION_HEADER
from intaglio.api.http.wire import component_schemas
from intaglio.api.inference.results import BatchAnswer, BatchFailure, BatchProgress, BatchResult, RunEvent, Usage
from intaglio.api.inference.run_input import NULL_MEANS_ABSENT
from intaglio.api.inference.schema import RunSchema
from intaglio.api.openapi.error_groups import EVERYWHERE, IN_AN_ACCOUNT, OF_A_BATCH, OF_A_RUN
from intaglio.api.openapi.failures import Failures
from intaglio.api.openapi.operation import EVENTS, JSON, DeclaredResponse, Operation
from intaglio.api.openapi.shapes import (
    ACCOUNT,
    FLAG,
    QUERY_FLAG,
    TEXT,
    model_in_path,
    one_of,
    or_null,
    parameter,
    record,
    ref,
)
from intaglio.api.openapi.streams import event_stream
from intaglio.errors import IdentifierError, IncompleteJsonError

TAG = "Run"
BINDING_TAG = "Workers binding"

_FLAG_AS_SENT = {"anyOf": [FLAG, one_of(("true", "false"))], "default": False}
# No types: as the service does, what is not understood here is ignored.
_OPTIONS: dict[str, Any] = {
    "description": "`rejectIfBusy: true` answers 429 at once rather than wait for others; `queueRequest: true` makes "
    "the body a batch; `lora` names an adapter.",
    "examples": [{"rejectIfBusy": True}],
}
_BINDING_OPTIONS = {"type": ["object", "null"], **_OPTIONS}
_EVENTS = event_stream("Each holds a piece of the answer, the last one `usage` and `finish_reason`.", ref("RunEvent"))
_RUN_HEADERS = {REQUEST_ID_HEADER: "The request's id, in the log too.", VERSION_HEADER: "This server's version."}


def run_schemas(schema: RunSchema) -> dict[str, Any]:
    return {
        **component_schemas((Usage, RunEvent, BatchProgress, BatchResult, BatchAnswer, BatchFailure)),
        "RunInput": input_as_sent(schema),
        "RunResult": schema.output["oneOf"][0],
        "BatchInput": record({"requests": {"type": "array", "minItems": 1}}, {"options": _OPTIONS}),
        "BatchQuestion": record({"request_id": TEXT}),
    }


def input_as_sent(schema: RunSchema) -> dict[str, Any]:
    """The schema that checks, and what is put right before it: nulls that mean absent, flags as text, `options`."""
    widened = copy.deepcopy(schema.input)
    for form in widened["oneOf"]:
        fields = form["properties"]
        for name in fields.keys() & (set(NULL_MEANS_ABSENT) - set(form["required"])):
            fields[name] = or_null(fields[name])
        for name in ("raw", "stream"):
            fields[name] = _FLAG_AS_SENT
        fields["options"] = _OPTIONS
    return widened


def run_operations(schema: RunSchema, model: str) -> dict[str, Operation]:
    inputs = [ref("RunInput"), ref("BatchInput"), ref("BatchQuestion")]
    errors = (*IN_AN_ACCOUNT, *OF_A_RUN, IncompleteJsonError, *OF_A_BATCH)
    responses = {200: _run_response(wrapped=True)}
    settings = [parameter(name, "query", field) for name, field in schema.settings.items()]
    queue = parameter("queueRequest", "query", QUERY_FLAG, "The body is a batch, or asks how far one is.")
    by_name = record({"model": {**TEXT, "examples": [model]}, "input": {"anyOf": inputs}}, {"options": _OPTIONS})
    return {
        "run_model": Operation(
            TAG, "Run a model",
            "Answers a prompt or a conversation, with an adapter if `lora` names one. With `queueRequest` it "
            "accepts a batch or reports its state. Settings may also be in the query; the body wins. A Worker's proxy "
            "posts to `…/ai/run/proxy` what the Worker asks of `/run`.",
            responses, parameters=(ACCOUNT, model_in_path(model), queue, *settings),
            body={JSON: {"anyOf": inputs}}, errors=errors,
        ),
        "run_named_model": Operation(
            TAG, "Run the model that the body names",
            "The same, with the model and its input in the body. An adapter's name is a model too.",
            responses, parameters=(ACCOUNT, queue, *settings), body={JSON: by_name}, errors=errors,
        ),
        "run_for_binding": _for_binding("Run a model from a Worker", inputs, model),
        "run_for_binding_by_gateway": _for_binding("The same by way of an AI gateway", inputs, model),
    }  # fmt: skip


def _for_binding(summary: str, inputs: list[dict[str, Any]], example: str) -> Operation:
    version = parameter("version", "query", {**one_of(VERSIONS), "default": VERSIONS[-1]}, "Of the binding's protocol.")
    model = parameter(
        MODEL_HEADER, "header", {"type": "string", "minLength": 1}, "The model, maybe with a prefix: `[prefix:]model`.",
        required=True, example=example,
    )  # fmt: skip
    account = parameter(ACCOUNT_HEADER, "header", ACCOUNT["schema"], "Whose finetunes; `local` where it is not sent.")
    return Operation(
        BINDING_TAG, summary, "What `env.AI.run()` asks. The answer is the bare result.",
        {200: _run_response(wrapped=False)},
        parameters=(version, model, account),
        body={JSON: record({"inputs": {"anyOf": inputs}}, {"options": _BINDING_OPTIONS})},
        errors=(*EVERYWHERE, *OF_A_RUN, IdentifierError, IncompleteJsonError, *OF_A_BATCH), failures=Failures.BINDING,
    )  # fmt: skip


def _run_response(*, wrapped: bool) -> DeclaredResponse:
    result = {"anyOf": [ref("RunResult"), ref("BatchProgress"), ref("BatchResult")]}
    content = {JSON: envelope_schema(result) if wrapped else result, EVENTS: _EVENTS}
    return DeclaredResponse("The result; the state of a batch; or its results.", content, _RUN_HEADERS)
