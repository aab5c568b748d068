"""The models that a tool with nothing but a model field can choose: the bases, and `<base>:<adapter>` for adapters."""

from __future__ import annotations

import asyncio
from datetime import datetime

from fastapi import APIRouter
from starlette.responses import Response

from intaglio.api.http.envelope import JsonResponse
from intaglio.api.inference.model_routes import model_cards
from intaglio.api.model_names import find_model
from intaglio.api.openai.responses import OpenAIModel, OpenAIModels
from intaglio.api.state import ServerState
from intaglio.finetunes import Finetune, FinetuneState
from intaglio.finetunes.demos import DEMO_ACCOUNT


def openai_model_routes(state: ServerState) -> APIRouter:
    """List and retrieve."""
    router = APIRouter()

    @router.get("/ai/v1/models", operation_id="list_openai_models")
    async def list_models(account: str) -> Response:
        finetunes = await asyncio.to_thread(_ready_finetunes, state, account)
        data = []
        for base in state.callable_models:
            bases = (base, state.stand_ins.get(base))
            data.append(_base_entry(state, base))
            data += [
                _adapter_entry(state, base, f"{base}:{one.name}", one, account)
                for one in finetunes
                if one.model in bases
            ]
        return JsonResponse(OpenAIModels("list", data))

    @router.get("/ai/v1/models/{model:path}", operation_id="read_openai_model")
    async def retrieve_model(account: str, model: str) -> Response:
        base, adapter = await find_model(state, account, model)
        state.llm(base)
        if adapter is None:
            return JsonResponse(_base_entry(state, base))
        answered_by = state.stand_ins.get(base)
        await asyncio.to_thread(  # what is listed is what answers
            state.finetunes.resolve, account, adapter, base, answered_by=answered_by
        )
        found = await asyncio.to_thread(state.finetunes.find, account, adapter)
        return JsonResponse(_adapter_entry(state, base, model, found, account))

    return router


def _ready_finetunes(state: ServerState, account: str) -> list[Finetune]:
    """The account's own and the demos; other accounts' public ones answer too, but only by their ids."""
    own = [one for one in state.finetunes.list_account(account) if one.state is FinetuneState.READY]
    return [*own, *(demo for base in state.models for demo in state.finetunes.list_demos(base))]


def _base_entry(state: ServerState, base: str) -> OpenAIModel:
    card = next(card for card in model_cards(state) if card.name == base)
    root = state.stand_ins.get(base, base)
    return OpenAIModel(
        base, "model", _seconds(state.started_at), card.author, root, None, max_model_len=state.llm(base).window
    )


def _adapter_entry(state: ServerState, base: str, model: str, finetune: Finetune, account: str) -> OpenAIModel:
    is_shown = finetune.account in (account, DEMO_ACCOUNT)  # ids of other accounts are not
    owner = finetune.account if is_shown else "public"
    window = state.llm(base).window
    return OpenAIModel(
        model, "model", _seconds(finetune.created_at), owner, finetune.id, parent=base, max_model_len=window
    )


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
