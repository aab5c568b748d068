"""POST /ai/run: text generation, plain or streamed, with or without an adapter."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from intaglio.api.http.json_body import read_json
from intaglio.api.inference.batch_routes import batch_answer, is_batch
from intaglio.api.inference.run import plain_answer, start_run
from intaglio.api.inference.run_input import read_run_input
from intaglio.api.inference.schema import RunSchema
from intaglio.api.inference.sse import RunStream
from intaglio.api.state import ServerState
from intaglio.errors import BadInputError


def run_routes(state: ServerState, schema: RunSchema) -> APIRouter:
    """The run route in both its forms: model in the path, model in the body."""
    router = APIRouter()

    @router.post("/ai/run/{model:path}", operation_id="run_model")
    async def run_model(request: Request, account: str, model: str) -> Response:
        request.state.request_id = str(uuid4())
        body = await read_json(request, state.settings.max_body_bytes)
        return await _run(request, account, model, body)

    @router.post("/ai/run", operation_id="run_named_model")
    async def run_named_in_body(request: Request, account: str) -> Response:
        request.state.request_id = str(uuid4())
        outer = await read_json(request, state.settings.max_body_bytes)
        model, body = _split_outer(outer)
        return await _run(request, account, model, body)

    async def _run(request: Request, account: str, model: str, body: Any) -> Response:
        if is_batch(body, request.query_params):
            return await batch_answer(
                state, account, model, body, request.query_params, schema, request.state.request_id
            )
        state.llm(model)  # an unknown model is refused before its input is looked at
        asked = read_run_input(body, request.query_params, schema)
        run = await start_run(state, account, model, asked, request.state.request_id)
        if asked.stream:
            return RunStream(run)
        return await plain_answer(request, run)

    return router


def _split_outer(outer: object) -> tuple[str, Any]:
    """{model, input, options} of the route without a model in its path."""
    if not isinstance(outer, dict) or not isinstance(outer.get("model"), str) or "input" not in outer:
        raise BadInputError("required properties at '/' are 'model,input', model a string")
    body = outer["input"]
    if isinstance(body, dict) and "options" in outer:
        body = {"options": outer["options"], **body}
    return outer["model"], body
