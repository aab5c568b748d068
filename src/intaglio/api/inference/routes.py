"""POST /ai/run: text generation, plain or streamed, with or without an adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from intaglio.api.http.disconnects import client_closed_response, run_until_disconnected
from intaglio.api.http.envelope import success
from intaglio.api.http.json_body import read_json
from intaglio.api.inference.batch_response import batch_response, is_batch
from intaglio.api.inference.lora_field import with_named_adapter
from intaglio.api.inference.run_input import read_run_input
from intaglio.api.inference.running_request import start_request
from intaglio.api.inference.schema import RunSchema, member
from intaglio.api.inference.sse import RunStream
from intaglio.api.model_names import check_base, find_model
from intaglio.api.state import ServerState
from intaglio.errors import BadInputError
from intaglio.wording import missing, wrong_type


def run_routes(state: ServerState, schema: RunSchema) -> APIRouter:
    """The run route in both its forms: model in the path, model in the body."""
    router = APIRouter()

    @router.post("/ai/run/{model:path}", operation_id="run_model")
    async def run_model(request: Request, account: str, model: str) -> Response:
        request.state.request_id = str(uuid4())
        request.state.answered_by = state.stand_ins.get(model)
        body = await read_json(request, state.settings.max_body_bytes)
        return await run_response(state, schema, request, account, model, body, request.query_params)

    @router.post("/ai/run", operation_id="run_named_model")
    async def run_named_in_body(request: Request, account: str) -> Response:
        request.state.request_id = str(uuid4())
        outer = await read_json(request, state.settings.max_body_bytes)
        model, body = _split_model(outer)
        request.state.answered_by = state.stand_ins.get(model)
        base, adapter = await find_model(state, account, model)
        request.state.answered_by = state.stand_ins.get(base)
        body = with_named_adapter(body, request.query_params, adapter)
        return await run_response(state, schema, request, account, base, body, request.query_params)

    return router


async def run_response(
    state: ServerState,
    schema: RunSchema,
    request: Request,
    account: str,
    model: str,
    body: Any,
    query: Mapping[str, str],
    to_response: Callable[..., Response] = success,
) -> Response:
    """The native response to a body: a batch's, a stream or a whole result.

    query        its settings are the defaults of the body's fields
    to_response  puts a result into its wire form: the envelope, or JsonResponse where the result is sent bare
    """
    request_id: str = request.state.request_id
    if is_batch(body, query):
        return await batch_response(state, account, model, body, query, schema, request_id, to_response)
    await check_base(state, account, model)  # an unknown model is refused before its input is checked
    run_input = read_run_input(body, query, schema)
    running = await start_request(state, account, model, run_input, request_id)
    if run_input.stream:
        return RunStream(running)
    result = await run_until_disconnected(request.receive, running.result(), running)
    if result is None:
        return client_closed_response()
    if to_response is success:
        return success(result, headers=running.headers, notes=running.notes, ignored=schema.misspelt_fields(body))
    return to_response(result, headers=running.headers)


def _split_model(outer: object) -> tuple[str, Any]:
    """Model and body of `{model, input, options}`, which the route without a model in its path gets."""
    if not isinstance(outer, dict):
        raise BadInputError(wrong_type("", outer, ["object"]))
    member("", outer, "model", str)
    if "input" not in outer:
        raise BadInputError(missing("", ["input"], outer))
    body = outer["input"]
    if isinstance(body, dict) and "options" in outer:
        body = {"options": outer["options"], **body}
    return outer["model"], body
