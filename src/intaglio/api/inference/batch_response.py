"""Asynchronous batches on the wire: submit a list of requests, poll for the responses.

    submit   {"requests": [{…}, …]} with queueRequest      -> {status: "queued", request_id, model}
    poll     {"request_id": "…"}, with or without it       -> {status: "queued" | "running", request_id, model, …}
                                                           -> {responses: [{id, result, success, …}, …], usage}

Both go to the run route. `batches` runs the requests, each by `batch_items`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from intaglio.api.http.errors import REQUEST_ID_HEADER, VERSION_HEADER
from intaglio.api.http.query import flag
from intaglio.api.inference.lora_field import lora_fields
from intaglio.api.inference.results import BatchProgress, BatchResult, usage_shape
from intaglio.api.inference.run_input import read_run_input
from intaglio.api.inference.schema import RunSchema
from intaglio.api.model_names import check_base
from intaglio.api.stand_ins import stand_in_headers
from intaglio.api.state import ServerState
from intaglio.batches import Batch, BatchState
from intaglio.errors import BadInputError
from intaglio.version import __version__
from intaglio.wording import wrong_type

MAX_SHARED_BYTES = 1 << 16  # read again for every item
_FLAG = "queueRequest"
_SINGLE_REQUEST_FIELDS = ("prompt", "messages", "external_reference")
_NOT_SHARED = frozenset({"requests", "request_id", "options", *_SINGLE_REQUEST_FIELDS, _FLAG})


def is_batch(body: object, query: Mapping[str, str]) -> bool:
    """Whether the body submits or polls a batch. Raises BadInputError if queueRequest in the query is not a flag."""
    if not isinstance(body, dict):
        return False
    runs_alone = body.get("prompt") is not None or body.get("messages") is not None
    return _asks_to_queue(body, query) or (not runs_alone and ("requests" in body or "request_id" in body))


async def batch_response(
    state: ServerState,
    account: str,
    model: str,
    body: dict[str, Any],
    query: Mapping[str, str],
    schema: RunSchema,
    request_id: str,
    to_response: Callable[..., Response],
) -> Response:
    """The response to a submission or a poll: to a body for which `is_batch` is true.

    query        its settings are the defaults of the items
    to_response  puts the result into its wire form

    Raises BadInputError, ModelNotFoundError, BatchNotFoundError, BatchQueueFullError or RequestTooLargeError.
    """
    result: BatchProgress | BatchResult
    answered_by = state.stand_ins.get(model)
    if body.get("request_id") is not None and "requests" not in body:
        result = await _poll(state, account, model, body["request_id"])
        if isinstance(result, BatchResult):  # another server, or this one with other stand-ins, may have run it
            ran = await asyncio.to_thread(state.batches.answered_by, account, body["request_id"])
            answered_by = ", ".join(ran) or None
    elif "requests" in body and body.get("request_id") is None and _asks_to_queue(body, query):
        result = await _submit(state, account, model, body, query, schema)
    elif "requests" in body and body.get("request_id") is None:
        raise BadInputError("requests is a batch, which needs ?queueRequest=true")
    else:
        raise BadInputError("queueRequest needs one of 'requests' (to submit a batch) and 'request_id' (to poll it)")
    headers = {REQUEST_ID_HEADER: request_id, VERSION_HEADER: __version__}
    return to_response(result, headers={**headers, **stand_in_headers(answered_by)})


async def _submit(
    state: ServerState, account: str, model: str, body: dict[str, Any], query: Mapping[str, str], schema: RunSchema
) -> BatchProgress:
    await check_base(state, account, model)  # for an unknown model the whole batch is refused
    requests = body["requests"]
    if not isinstance(requests, list):
        raise BadInputError(wrong_type("requests", requests, ["array"]))
    if not requests:
        raise BadInputError("requests is empty; at least 1 item is needed")
    shared = _shared_settings(body, query, schema)

    def add() -> Batch:
        return state.batches.add(account, model, [msgspec.json.encode(request) for request in requests], shared)

    batch = await asyncio.to_thread(add)
    state.batch_added.set()
    return BatchProgress(BatchState.QUEUED.value, batch.id, model)


async def _poll(state: ServerState, account: str, model: str, batch_id: object) -> BatchProgress | BatchResult:
    if not isinstance(batch_id, str):
        raise BadInputError(wrong_type("request_id", batch_id, ["string"]))
    batch = await asyncio.to_thread(state.batches.find, account, batch_id)
    if batch.model != model:
        raise BadInputError(f"batch {batch_id} was submitted to {batch.model}: poll it there, not at {model}")
    if batch.state is not BatchState.FINISHED:
        return BatchProgress(batch.state.value, batch.id, model, batch.num_done, batch.num_items)
    responses = await asyncio.to_thread(state.batches.responses, account, batch_id)
    usage = usage_shape(batch.tokens.prompt, batch.tokens.completion, batch.tokens.cached)
    return BatchResult([msgspec.Raw(text) for text in responses], usage)


def _asks_to_queue(body: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    """Whether queueRequest is set in the query, or in the body or its `options`, as the binding's users send it."""
    options = body.get("options")
    places = (body, options if isinstance(options, dict) else {})
    return flag(query, _FLAG) or any(place.get(_FLAG) in (True, "true") for place in places)


def _shared_settings(body: Mapping[str, Any], query: Mapping[str, str], schema: RunSchema) -> bytes:
    """The defaults of the items, as JSON: fields beside `requests`, the adapter of `options`, settings of the query."""
    for name in _SINGLE_REQUEST_FIELDS:
        if body.get(name) not in (None, "", []):  # some SDKs require one of these fields, and send it empty
            raise BadInputError(f"{name} cannot be used beside requests; put it into each of the requests")
    options = body.get("options")
    if isinstance(options, dict) and options.get("rejectIfBusy") in (True, "true"):
        raise BadInputError("options.rejectIfBusy cannot be used with a batch, which waits for capacity")
    fields = {name: value for name, value in body.items() if name not in _NOT_SHARED}
    given = lora_fields(body, query)
    if given:
        fields["lora"] = given[0]
    settings = {name: query[name] for name in schema.settings if name in query and name != "lora"}
    read_run_input({"prompt": "any"}, settings, schema)  # an invalid setting would make every item fail
    shared = msgspec.json.encode({"fields": fields, "query": settings})
    if len(shared) > MAX_SHARED_BYTES:
        raise BadInputError(
            f"the fields beside requests have {len(shared)} bytes, more than {MAX_SHARED_BYTES}: "
            "put them into the requests"
        )
    return shared
