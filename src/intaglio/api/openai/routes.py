"""The OpenAI-compatible routes. Success is bare, as OpenAI's clients need it; errors have the Cloudflare envelope."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from intaglio.api.http.disconnects import client_closed_response, run_until_disconnected
from intaglio.api.http.envelope import JsonResponse
from intaglio.api.http.json_body import read_json
from intaglio.api.model_names import NamedModel, find_model, note_stand_in
from intaglio.api.openai.choices import Choices, collect, start_choices
from intaglio.api.openai.input import OpenAIInput, read_chat, read_completions
from intaglio.api.openai.output import ChatForm, ResponseForm, TextForm
from intaglio.api.openai.schema import chat_check, completions_check
from intaglio.api.openai.stream import OpenAIStream
from intaglio.api.state import ServerState
from intaglio.errors import RouteError

_SERVED_ROUTES = "chat/completions, completions, responses, messages and models"
# vLLM's routes, which read a folder of the server's disk.
_HOW_TO_LOAD = (
    "Adapters are not loaded from a path here. Upload one with `intaglio adapters upload FOLDER`, or create it with "
    "POST /client/v4/accounts/{account}/ai/finetunes and send its two files to …/finetunes/{finetune}/finetune-assets. "
    "Then name it in `model` or `lora`: it is loaded by the first request that does"
)
_HOW_TO_UNLOAD = (
    "Adapters are not unloaded here: those that no request uses leave the memory when it is needed. "
    "DELETE /client/v4/accounts/{account}/ai/finetunes/{finetune} deletes one, also from the disk"
)


def openai_routes(state: ServerState) -> APIRouter:
    """Chat completions, completions, and 404 with the reason for routes that these models do not have."""
    router = APIRouter()
    check_chat, check_completions = chat_check(), completions_check()

    async def named_model(request: Request, account: str, body: dict[str, Any]) -> NamedModel:
        named = await find_model(state, account, body["model"])
        request.state.answered_by = state.stand_ins.get(named.base)
        return named

    @router.post("/ai/v1/chat/completions", operation_id="create_chat_completion")
    async def chat_completions(request: Request, account: str) -> Response:
        request.state.request_id = str(uuid4())
        sent = await read_json(request, state.settings.max_body_bytes)
        note_stand_in(state, request, sent)
        body = check_chat.read(sent, request.query_params)
        named = await named_model(request, account, body)
        return await _respond(request, account, read_chat(body, named, state.settings.chat_max_tokens), ChatForm)

    @router.post("/ai/v1/completions", operation_id="create_completion")
    async def completions(request: Request, account: str) -> Response:
        request.state.request_id = str(uuid4())
        sent = await read_json(request, state.settings.max_body_bytes)
        note_stand_in(state, request, sent)
        body = check_completions.read(sent, request.query_params)
        named = await named_model(request, account, body)
        asked = read_completions(body, named, state.settings.completions_max_tokens)
        return await _respond(request, account, asked, TextForm)

    @router.post("/ai/v1/embeddings", operation_id="create_embedding")
    async def embeddings(account: str) -> Response:
        raise RouteError(f"No embeddings here: this server generates text. Below /ai/v1 it has {_SERVED_ROUTES}")

    @router.post("/ai/v1/load_lora_adapter", operation_id="load_lora_adapter")
    async def load_lora_adapter(account: str) -> Response:
        raise RouteError(_HOW_TO_LOAD)

    @router.post("/ai/v1/unload_lora_adapter", operation_id="unload_lora_adapter")
    async def unload_lora_adapter(account: str) -> Response:
        raise RouteError(_HOW_TO_UNLOAD)

    async def _respond(
        request: Request, account: str, openai_input: OpenAIInput, make_form: type[ResponseForm]
    ) -> Response:
        request_id: str = request.state.request_id
        form = make_form(request_id, openai_input.model, with_logprobs=openai_input.with_logprobs)
        choices = await start_choices(state, account, openai_input, request_id)
        if openai_input.stream:
            return OpenAIStream(
                choices, form, include_usage=openai_input.include_usage, usage_in_each=openai_input.usage_in_each
            )
        response = await run_until_disconnected(request.receive, _collect(choices, form), choices)
        return response or client_closed_response()

    return router


async def _collect(choices: Choices, form: ResponseForm) -> Response:
    complete = [form.choice(index, choice) for index, choice in enumerate(await collect(choices))]
    return JsonResponse(form.whole(complete, choices.usage), headers=choices.headers)
