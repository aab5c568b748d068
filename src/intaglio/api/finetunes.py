"""The finetune routes: create, list, read, upload a file, list the public ones."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from intaglio.adapters import Finetune
from intaglio.api.body import read_json
from intaglio.api.envelope import success
from intaglio.api.multipart import read_upload
from intaglio.api.query import integer
from intaglio.api.state import ServerState
from intaglio.errors import BadInputError, FinetuneError

DEFAULT_PUBLIC_LIMIT = 100
MAX_PUBLIC_LIMIT = 1000
MAX_DESCRIPTION_CHARS = 10_000
BUCKET_NAME = "intaglio-finetunes"  # the service names a storage bucket here; clients only hand it on


class CreateFinetune(msgspec.Struct, frozen=True):
    """The body of POST /ai/finetunes; other keys are ignored."""

    model: str
    name: str
    description: str | None = None
    public: bool | None = None


def finetune_routes(state: ServerState) -> APIRouter:
    """Everything below /ai/finetunes."""
    router = APIRouter()
    adapters = state.adapters

    @router.post("/ai/finetunes")
    async def create(request: Request, account: str) -> Response:
        body = await read_json(request, state.settings.max_body_bytes)
        asked = _create_body(body)
        _check_base(state, asked.model)
        made = await asyncio.to_thread(
            adapters.create,
            account=account,
            name=asked.name,
            model=asked.model,
            description=asked.description or "",
            public=bool(asked.public),
        )
        return success(finetune_json(made))

    @router.get("/ai/finetunes")
    async def list_own(account: str) -> Response:
        return success([finetune_json(one) for one in await asyncio.to_thread(adapters.list_account, account)])

    @router.get("/ai/finetunes/public")
    async def list_public(request: Request, account: str) -> Response:
        query = request.query_params
        limit = integer(query, "limit", default=DEFAULT_PUBLIC_LIMIT, low=0, high=MAX_PUBLIC_LIMIT)
        offset = integer(query, "offset", default=0, low=0)
        order_by = query.get("orderBy") or "created_at"
        found = await asyncio.to_thread(adapters.list_public, limit, offset, order_by)
        return success([finetune_json(one) for one in found])

    @router.get("/ai/finetunes/{finetune}")
    async def read(account: str, finetune: str) -> Response:
        return success(finetune_json(await asyncio.to_thread(adapters.find, account, finetune)))

    @router.post("/ai/finetunes/{finetune}/finetune-assets")
    async def upload(request: Request, account: str, finetune: str) -> Response:
        found = await asyncio.to_thread(adapters.find_own, account, finetune)
        llm = state.llm(found.model)
        with adapters.stage() as staged:
            file_name = await read_upload(request, staged, state.settings.max_adapter_file_bytes)
            async with state.check_lock:
                now = await asyncio.to_thread(
                    adapters.add_file, account, found.id, file_name, staged, llm.config, llm.packed
                )
        return success(_asset_json(now, file_name))

    return router


def finetune_json(finetune: Finetune) -> dict[str, Any]:
    """A finetune as the lists have it, and beyond that its state, why it was refused, its digest, an example."""
    content = {
        "id": finetune.id,
        "account_id": finetune.account,
        "name": finetune.name,
        "model": finetune.model,
        "description": finetune.description,
        "public": finetune.public,
        "created_at": _time(finetune.created_at),
        "modified_at": _time(finetune.modified_at),
        "state": finetune.state.value,
    }
    extras = {
        "reason": finetune.reason,
        "digest": finetune.digest,
        "example_prompt": finetune.example_prompt,
    }
    return content | {name: value for name, value in extras.items() if value is not None}


def _asset_json(finetune: Finetune, file_name: str) -> dict[str, Any]:
    """The upload's result: what older SDKs unwrap, and what became of the finetune."""
    return {
        "id": finetune.files[file_name].sha256,
        "bucket_name": BUCKET_NAME,
        "created_at": _time(finetune.modified_at),
        "file_name": file_name,
        "finetune_id": finetune.id,
        "modified_at": _time(finetune.modified_at),
        "state": finetune.state.value,
    }


def _create_body(body: Any) -> CreateFinetune:
    try:
        asked = msgspec.convert(body, CreateFinetune)
    except msgspec.ValidationError as error:
        raise BadInputError(f"a finetune needs model and name, both strings: {error}") from error
    if len(asked.description or "") > MAX_DESCRIPTION_CHARS:
        raise BadInputError(f"description is longer than {MAX_DESCRIPTION_CHARS} characters")
    return asked


def _check_base(state: ServerState, model: str) -> None:
    if model not in state.models:
        served = ", ".join(sorted(state.models))
        raise FinetuneError(f"MODEL_NOT_SUPPORTED: this server has no weights for {model[:256]!r}; it has {served}")


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
