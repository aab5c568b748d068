"""POST /ai/run: text generation, plain or streamed, with or without an adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from intaglio.api.body import read_json
from intaglio.api.disconnect import ClientGoneError, unless_gone
from intaglio.api.envelope import success
from intaglio.api.errors import REQUEST_ID_HEADER
from intaglio.api.run_input import RunInput, read_run_input
from intaglio.api.run_record import RunRecord
from intaglio.api.schema import RunSchema
from intaglio.api.sse import RunStream
from intaglio.api.state import ServerState
from intaglio.errors import BadInputError
from intaglio.request import AdapterRef

if TYPE_CHECKING:
    from intaglio.llm import AsyncLLM, Generation

DIGEST_HEADER = "intaglio-adapter-digest"
CLIENT_CLOSED_REQUEST = 499  # nobody reads it; access logs know it


def run_routes(state: ServerState, schema: RunSchema) -> APIRouter:
    """The run route in both its forms: model in the path, model in the body."""
    router = APIRouter()

    @router.post("/ai/run/{model:path}")
    async def run_model(request: Request, account: str, model: str) -> Response:
        request.state.request_id = str(uuid4())
        body = await read_json(request, state.settings.max_body_bytes)
        return await _run(request, account, model, body)

    @router.post("/ai/run")
    async def run_named_in_body(request: Request, account: str) -> Response:
        request.state.request_id = str(uuid4())
        outer = await read_json(request, state.settings.max_body_bytes)
        model, body = _split_outer(outer)
        return await _run(request, account, model, body)

    async def _run(request: Request, account: str, model: str, body: Any) -> Response:
        llm = state.llm(model)
        asked = read_run_input(body, request.query_params, schema)
        adapter = await _resolve(state, account, asked.lora, model)
        prompt_ids = await asyncio.to_thread(_render, llm, asked)  # long prompts take a while to tokenize
        record = RunRecord(request.state.request_id, model, adapter.digest if adapter else None)
        generation = await llm.submit(prompt_ids, asked.params, adapter=adapter, stop=asked.stop)
        headers = {REQUEST_ID_HEADER: record.request_id}
        if adapter is not None:
            headers[DIGEST_HEADER] = adapter.digest
        if asked.stream:
            return RunStream(generation, record, headers)
        return await _plain_answer(request, generation, record, headers)

    return router


async def _resolve(state: ServerState, account: str, lora: str | None, model: str) -> AdapterRef | None:
    if lora is None:
        return None
    return await asyncio.to_thread(state.adapters.resolve, account, lora, model)


def _render(llm: AsyncLLM, asked: RunInput) -> list[int]:
    if asked.prompt is not None:
        return llm.render_prompt(asked.prompt, raw=asked.raw)
    return llm.render_messages(asked.messages or [])


async def _plain_answer(
    request: Request, generation: Generation, record: RunRecord, headers: Mapping[str, str]
) -> Response:
    failed: BaseException | None = None
    try:
        text = await unless_gone(request.receive, _collect(generation, record))
        return success({"response": text, **record.end_chunk()}, headers=headers)
    except ClientGoneError as error:
        failed = error
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except BaseException as error:
        failed = error
        raise
    finally:
        await generation.abort()  # harmless at the end; frees the sequence if we leave before it
        record.close(failed)


async def _collect(generation: Generation, record: RunRecord) -> str:
    pieces = []
    async for delta in generation:
        record.note(delta)
        pieces.append(delta.text)
    return "".join(pieces)


def _split_outer(outer: object) -> tuple[str, Any]:
    """{model, input, options} of the route without a model in its path."""
    if not isinstance(outer, dict) or not isinstance(outer.get("model"), str) or "input" not in outer:
        raise BadInputError("required properties at '/' are 'model,input', model a string")
    body = outer["input"]
    if isinstance(body, dict) and "options" in outer:
        body = {"options": outer["options"], **body}
    return outer["model"], body
