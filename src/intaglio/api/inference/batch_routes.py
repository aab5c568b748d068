"""The asynchronous batch on the wire: submit a list of requests, ask later for the answers.

    submit   {"requests": [{…}, …]} with queueRequest      -> {status: "queued", request_id, model}
    poll     {"request_id": "…"}, with or without it       -> {status: "queued" | "running", request_id, model, …}
                                                           -> {responses: [{id, result, success, …}, …], usage}

Both go to the run route. Running the requests is the work of `batches`, and of `batch_items`, which knows what one is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from intaglio.api.http.envelope import success
from intaglio.api.http.errors import REQUEST_ID_HEADER, VERSION_HEADER
from intaglio.api.http.query import flag
from intaglio.api.inference.lora_field import lora_fields
from intaglio.api.inference.run_input import read_run_input
from intaglio.api.inference.schema import RunSchema, json_type
from intaglio.api.state import ServerState
from intaglio.batches import Batch, BatchState, TokenCounts
from intaglio.errors import BadInputError
from intaglio.version import __version__

MAX_SHARED_BYTES = 1 << 16  # read again for every item
_FLAG = "queueRequest"
_OF_ONE_REQUEST = ("prompt", "messages", "external_reference")
_NOT_SHARED = frozenset({"requests", "request_id", "options", *_OF_ONE_REQUEST, _FLAG})


def is_batch(body: object, query: Mapping[str, str]) -> bool:
    """Whether this is no single run. Raises BadInputError for a queueRequest that is neither true nor false."""
    if not isinstance(body, dict):
        return False
    runs_alone = body.get("prompt") is not None or body.get("messages") is not None
    return _asks_to_queue(body, query) or (not runs_alone and ("requests" in body or "request_id" in body))


async def batch_answer(
    state: ServerState,
    account: str,
    model: str,
    body: dict[str, Any],
    query: Mapping[str, str],
    schema: RunSchema,
    request_id: str,
    answer: Callable[..., Response] = success,
) -> Response:
    """Answer what `is_batch` says is one: a submission, or the question how far a batch is.

    query   settings in it hold for every item that does not say otherwise
    answer  puts the result into its wire form: the envelope, or JsonAnswer for callers who want it bare

    Raises BadInputError, ModelNotFoundError, BatchNotFoundError, BatchQueueFullError or RequestTooLargeError.
    """
    if body.get("request_id") is not None and "requests" not in body:
        result = await _poll(state, account, model, body["request_id"])
    elif "requests" in body and body.get("request_id") is None and _asks_to_queue(body, query):
        result = await _submit(state, account, model, body, query, schema)
    elif "requests" in body and body.get("request_id") is None:
        raise BadInputError("'/requests' is a batch, which needs ?queueRequest=true")
    else:
        raise BadInputError("queueRequest needs one of 'requests' (to submit a batch) and 'request_id' (to poll it)")
    return answer(result, headers={REQUEST_ID_HEADER: request_id, VERSION_HEADER: __version__})


async def _submit(
    state: ServerState, account: str, model: str, body: dict[str, Any], query: Mapping[str, str], schema: RunSchema
) -> dict[str, Any]:
    state.llm(model)  # an unknown model is refused as a whole
    requests = body["requests"]
    if not isinstance(requests, list):
        raise BadInputError(f"Type mismatch of '/requests', 'array' not in '{json_type(requests)}'")
    if not requests:
        raise BadInputError("Number of items of '/requests' must be >= 1 not met")
    shared = _shared(body, query, schema)

    def add() -> Batch:
        return state.batches.add(account, model, [msgspec.json.encode(request) for request in requests], shared)

    batch = await asyncio.to_thread(add)
    state.batch_added.set()
    return {"status": BatchState.QUEUED.value, "request_id": batch.id, "model": model}


async def _poll(state: ServerState, account: str, model: str, batch_id: object) -> dict[str, Any]:
    if not isinstance(batch_id, str):
        raise BadInputError(f"Type mismatch of '/request_id', 'string' not in '{json_type(batch_id)}'")
    batch = await asyncio.to_thread(state.batches.find, account, batch_id)
    if batch.model != model:
        raise BadInputError(f"batch {batch_id} was submitted to {batch.model}: poll it there, not at {model}")
    if batch.state is not BatchState.FINISHED:
        progress = {"completed": batch.num_done, "total": batch.num_items}
        return {"status": batch.state.value, "request_id": batch.id, "model": model, **progress}
    answers = await asyncio.to_thread(state.batches.answers, account, batch_id)
    return {"responses": [msgspec.Raw(text) for text in answers], "usage": _usage(batch.tokens)}


def _asks_to_queue(body: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    """By the query string, or by `options` or the body itself, as the binding's documentation has it."""
    options = body.get("options")
    places = (body, options if isinstance(options, dict) else {})
    return flag(query, _FLAG) or any(place.get(_FLAG) in (True, "true") for place in places)


def _shared(body: Mapping[str, Any], query: Mapping[str, str], schema: RunSchema) -> bytes:
    """What holds for all items, as JSON: fields beside `requests`, the adapter of `options`, settings of the query."""
    for name in _OF_ONE_REQUEST:
        if body.get(name) not in (None, "", []):  # some SDKs must be told one of them, and send null or nothing in it
            raise BadInputError(f"'/{name}' stands beside '/requests', where it belongs to none of them")
    options = body.get("options")
    if isinstance(options, dict) and options.get("rejectIfBusy") in (True, "true"):
        raise BadInputError("'/options/rejectIfBusy' cannot be used with a batch, which waits for room")
    fields = {name: value for name, value in body.items() if name not in _NOT_SHARED}
    given = lora_fields(body, query)
    if given:
        fields["lora"] = given[0]
    settings = {name: query[name] for name in schema.settings if name in query and name != "lora"}
    read_run_input({"prompt": "any"}, settings, schema)  # a setting that is wrong would be so for every item
    shared = msgspec.json.encode({"fields": fields, "query": settings})
    if len(shared) > MAX_SHARED_BYTES:
        raise BadInputError(
            f"the fields beside '/requests' have {len(shared)} bytes, more than {MAX_SHARED_BYTES}: "
            "put them into the requests"
        )
    return shared


def _usage(tokens: TokenCounts) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
    }
