"""The OpenAI-compatible routes. Success is bare, as OpenAI's clients need it; errors have the Cloudflare envelope."""

from __future__ import annotations

from contextlib import aclosing
from uuid import uuid4

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from intaglio.api.http.disconnects import see_through
from intaglio.api.http.envelope import JsonAnswer
from intaglio.api.http.json_body import read_json
from intaglio.api.inference.model_cards import WITHOUT_WEIGHTS
from intaglio.api.inference.run import nobody_left
from intaglio.api.inference.run_log import usage_json
from intaglio.api.openai.choice import Said, joined
from intaglio.api.openai.input import OpenAIInput, read_chat, read_completions
from intaglio.api.openai.output import AnswerForm, ChatForm, TextForm
from intaglio.api.openai.run import Choices, deltas, start_choices
from intaglio.api.openai.schema import chat_check, completions_check
from intaglio.api.openai.stream import OpenAIStream
from intaglio.api.state import ServerState
from intaglio.errors import RouteError

_WHAT_THERE_IS = "chat/completions, completions and models"


def openai_routes(state: ServerState) -> APIRouter:
    """Chat completions, completions, and a clear no to what these models do not do."""
    router = APIRouter()
    check_chat, check_completions = chat_check(), completions_check()
    served = {*state.models, *WITHOUT_WEIGHTS}

    @router.post("/ai/v1/chat/completions", operation_id="create_chat_completion")
    async def chat_completions(request: Request, account: str) -> Response:
        request.state.request_id = str(uuid4())
        sent = await read_json(request, state.settings.max_body_bytes)
        body = check_chat.read(sent, request.query_params)
        return await _answer(request, account, read_chat(body, served), ChatForm)

    @router.post("/ai/v1/completions", operation_id="create_completion")
    async def completions(request: Request, account: str) -> Response:
        request.state.request_id = str(uuid4())
        sent = await read_json(request, state.settings.max_body_bytes)
        body = check_completions.read(sent, request.query_params)
        return await _answer(request, account, read_completions(body, served), TextForm)

    @router.post("/ai/v1/embeddings", operation_id="create_embedding")
    async def embeddings(account: str) -> Response:
        raise RouteError(f"No embeddings here: this server generates text. Below /ai/v1 it has {_WHAT_THERE_IS}")

    @router.post("/ai/v1/responses", operation_id="create_response")
    async def responses(account: str) -> Response:
        raise RouteError(f"No responses API here. Below /ai/v1 this server has {_WHAT_THERE_IS}")

    async def _answer(request: Request, account: str, asked: OpenAIInput, make_form: type[AnswerForm]) -> Response:
        request_id: str = request.state.request_id
        form = make_form(request_id, asked.model, with_logprobs=asked.with_logprobs)
        choices = await start_choices(state, account, asked, request_id)
        if asked.stream:
            return OpenAIStream(choices, form, include_usage=asked.include_usage)
        return await see_through(request.receive, _collect(choices, form), choices.end) or nobody_left()

    return router


async def _collect(choices: Choices, form: AnswerForm) -> Response:
    readers = choices.readers()
    pieces: list[list[Said]] = [[] for _ in readers]
    async with aclosing(deltas(choices.runs)) as news:
        async for index, delta in news:
            pieces[index].append(readers[index].take(delta))
    listed = [form.choice(index, joined(said)) for index, said in enumerate(pieces)]
    return JsonAnswer(form.whole(listed, usage_json(choices.usage)), headers=choices.headers)
