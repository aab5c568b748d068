"""OpenAI's Responses routes: create, read and delete a response."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from intaglio.api.http.disconnects import client_closed_response, run_until_disconnected
from intaglio.api.http.envelope import JsonResponse
from intaglio.api.http.json_body import read_json
from intaglio.api.http.query import check_names
from intaglio.api.model_names import find_model, note_stand_in
from intaglio.api.openai.choices import Choices, collect, start_choices
from intaglio.api.openai.input import read_chat
from intaglio.api.responses.input import FORMAT_FIELD, Message, as_chat_body, read_items
from intaglio.api.responses.input_items import input_items
from intaglio.api.responses.output import ResponseForm, output_message
from intaglio.api.responses.schema import responses_check
from intaglio.api.responses.shapes import DeletedResponse, Item, ResponseObject
from intaglio.api.responses.stream import ResponseStream, Store
from intaglio.api.state import ServerState
from intaglio.conversations import StoredResponse


def response_routes(state: ServerState) -> APIRouter:
    """Create a response, whole or streamed; read and delete a stored one."""
    router = APIRouter()
    check = responses_check()

    @router.post("/ai/v1/responses", operation_id="create_response")
    async def create_response(request: Request, account: str) -> Response:
        request_id = request.state.request_id = str(uuid4())
        sent = await read_json(request, state.settings.max_body_bytes)
        note_stand_in(state, request, sent)
        body = check.read(sent, request.query_params)
        earlier = await _earlier(state, account, body)
        named = await find_model(state, account, body["model"])
        request.state.answered_by = state.stand_ins.get(named.base)
        asked = read_chat(as_chat_body(body, earlier), named, state.settings.responses_max_tokens, FORMAT_FIELD)
        form = ResponseForm(request_id, body, asked.prompts[0].params)
        store = _storing(state, account, form, [*earlier, *read_items(body["input"])])
        choices = await start_choices(state, account, asked, request_id)
        if asked.stream:
            return ResponseStream(choices, form, store)
        response = await run_until_disconnected(request.receive, _whole(choices, form, store), choices)
        return response or client_closed_response()

    @router.get("/ai/v1/responses/{response_id}", operation_id="read_response")
    async def read_response(request: Request, account: str, response_id: str) -> Response:
        check_names(request.query_params)
        stored = await asyncio.to_thread(state.responses.find, account, response_id)
        return JsonResponse(msgspec.Raw(stored.response))

    @router.get("/ai/v1/responses/{response_id}/input_items", operation_id="list_input_items")
    async def list_input_items(request: Request, account: str, response_id: str) -> Response:
        stored = await asyncio.to_thread(state.responses.find, account, response_id)
        *asked, _ = msgspec.json.decode(stored.conversation)
        return JsonResponse(input_items(response_id, asked, request.query_params))

    @router.delete("/ai/v1/responses/{response_id}", operation_id="delete_response")
    async def delete_response(account: str, response_id: str) -> Response:
        await asyncio.to_thread(state.responses.delete, account, response_id)
        return JsonResponse(DeletedResponse(response_id, "response", True))

    return router


async def _earlier(state: ServerState, account: str, body: dict[str, Any]) -> list[Message]:
    """The messages of the conversation that the body continues. Raises ResponseNotFoundError."""
    if "previous_response_id" not in body:
        return []
    stored = await asyncio.to_thread(state.responses.find, account, body["previous_response_id"])
    messages: list[Message] = msgspec.json.decode(stored.conversation)
    return messages


def _storing(state: ServerState, account: str, form: ResponseForm, messages: Sequence[Message]) -> Store:
    """Stores a response with its conversation, unless the request says not to."""

    async def store(response: ResponseObject, items: Sequence[Item]) -> None:
        if form.is_stored:
            conversation = msgspec.json.encode([*messages, output_message(items)])
            stored = StoredResponse(msgspec.json.encode(response), conversation)
            await asyncio.to_thread(state.responses.add, account, form.id, stored)

    return store


async def _whole(choices: Choices, form: ResponseForm, store: Store) -> Response:
    (choice,) = await collect(choices)
    items = form.items(choice)
    response = form.ended(items, choice, choices.usage)
    await store(response, items)
    return JsonResponse(response, headers=choices.headers)
