"""Anthropic's Messages routes: a message, and the count of a prompt's tokens."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from intaglio.api.http.disconnects import client_closed_response, run_until_disconnected
from intaglio.api.http.envelope import JsonResponse
from intaglio.api.http.json_body import read_json
from intaglio.api.inference.running_request import prepare
from intaglio.api.messages.input import as_chat_body, output_format
from intaglio.api.messages.output import MessageForm, MessageTokens
from intaglio.api.messages.schema import count_check, messages_check
from intaglio.api.messages.stream import MessageStream
from intaglio.api.model_names import find_model, note_stand_in
from intaglio.api.openai.choices import Choices, collect, start_choices
from intaglio.api.openai.input import OpenAIInput, read_chat
from intaglio.api.openai.schema import BodyCheck
from intaglio.api.state import ServerState


def message_routes(state: ServerState) -> APIRouter:
    """Create a message, whole or streamed, and count the tokens of one."""
    router = APIRouter()
    check_message, check_count = messages_check(), count_check()

    @router.post("/ai/v1/messages", operation_id="create_message")
    async def create_message(request: Request, account: str) -> Response:
        asked = await _read(request, account, check_message)
        request_id: str = request.state.request_id
        form = MessageForm(request_id, asked.model)
        choices = await start_choices(state, account, asked, request_id)
        if asked.stream:
            return MessageStream(choices, form)
        response = await run_until_disconnected(request.receive, _whole(choices, form), choices)
        return response or client_closed_response()

    @router.post("/ai/v1/messages/count_tokens", operation_id="count_message_tokens")
    async def count_tokens(request: Request, account: str) -> Response:
        asked = await _read(request, account, check_count)
        prepared = await prepare(state, account, asked.base, asked.prompts[0])
        return JsonResponse(MessageTokens(len(prepared.prompt_ids)))

    async def _read(request: Request, account: str, check: BodyCheck) -> OpenAIInput:
        request.state.request_id = str(uuid4())
        sent = await read_json(request, state.settings.max_body_bytes)
        note_stand_in(state, request, sent)
        body: dict[str, Any] = check.read(sent, request.query_params)
        chat = as_chat_body(body)
        named = await find_model(state, account, body["model"])
        request.state.answered_by = state.stand_ins.get(named.base)
        format_field, _ = output_format(body)
        return read_chat(chat, named, format_field=format_field)

    return router


async def _whole(choices: Choices, form: MessageForm) -> Response:
    (choice,) = await collect(choices)
    message = form.whole(choice, choices.running[0].log.stop_string, choices.usage)
    return JsonResponse(message, headers=choices.headers)
