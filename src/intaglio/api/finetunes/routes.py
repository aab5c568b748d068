"""The finetune routes: create, list, read, upload and download a file, roll back, delete, list the public ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from intaglio.api.finetunes.file_response import file_response
from intaglio.api.finetunes.responses import deleted_finetune, finetune_detail, finetune_summary, uploaded_asset
from intaglio.api.finetunes.upload_form import read_upload
from intaglio.api.finetunes.verification import with_verifier
from intaglio.api.http.envelope import success
from intaglio.api.http.json_body import read_json
from intaglio.api.http.query import check_names, check_spelling, flag, integer
from intaglio.api.state import ServerState
from intaglio.errors import AdapterError, BadInputError, EmptyBodyError, FinetuneError
from intaglio.finetunes import Finetune
from intaglio.finetunes.store import is_gguf_name, stored_name
from intaglio.finetunes.upload import Verify
from intaglio.lora.peft.reader import WEIGHTS_FILE

DEFAULT_PUBLIC_LIMIT = 100
MAX_PUBLIC_LIMIT = 1000
MAX_DESCRIPTION_CHARS = 10_000


class CreateFinetune(msgspec.Struct, frozen=True):
    """The body of POST /ai/finetunes; other keys are ignored."""

    model: str
    name: str
    description: str | None = None
    public: bool | None = None


def finetune_routes(state: ServerState) -> APIRouter:
    """Everything below /ai/finetunes."""
    router = APIRouter()
    finetunes = state.finetunes

    async def detail(found: Finetune) -> Response:
        verified = await state.background_verification.with_verification(found, state.find_llm(found.model))
        return success(finetune_detail(verified))

    @router.post("/ai/finetunes", operation_id="create_finetune")
    async def create(request: Request, account: str) -> Response:
        body = await read_json(request, state.settings.max_body_bytes)
        creation = _read_creation(body)
        _check_base(state, creation.model)
        made = await asyncio.to_thread(
            finetunes.create,
            account=account,
            name=creation.name,
            model=creation.model,
            description=creation.description or "",
            public=bool(creation.public),
        )
        return success(finetune_summary(made))

    @router.get("/ai/finetunes", operation_id="list_finetunes")
    async def list_own(account: str) -> Response:
        found = await asyncio.to_thread(finetunes.list_account, account)
        return success([finetune_summary(state.background_verification.with_known(one)) for one in found])

    @router.get("/ai/finetunes/public", operation_id="list_public_finetunes")
    async def list_public(request: Request, account: str) -> Response:
        query = request.query_params
        check_spelling(query, "limit", "offset", "orderBy")
        limit = integer(query, "limit", default=DEFAULT_PUBLIC_LIMIT, low=0, high=MAX_PUBLIC_LIMIT)
        offset = integer(query, "offset", default=0, low=0)
        found = await asyncio.to_thread(finetunes.list_public, limit, offset, query.get("orderBy", "created_at"))
        return success([finetune_summary(state.background_verification.with_known(one)) for one in found])

    @router.get("/ai/finetunes/{finetune}", operation_id="read_finetune")
    async def read(account: str, finetune: str) -> Response:
        return await detail(await asyncio.to_thread(finetunes.find, account, finetune))

    @router.delete("/ai/finetunes/{finetune}", operation_id="delete_finetune")
    async def delete(account: str, finetune: str) -> Response:
        return success(deleted_finetune(await asyncio.to_thread(finetunes.delete, account, finetune)))

    @router.post("/ai/finetunes/{finetune}/rollback", operation_id="roll_back_finetune")
    async def roll_back(request: Request, account: str, finetune: str) -> Response:
        check_names(request.query_params, "version")
        to = integer(request.query_params, "version", default=0, low=1) or None  # None: the newest earlier one
        await _check_no_body(request, state.settings.max_body_bytes)
        return await detail(await asyncio.to_thread(finetunes.roll_back, account, finetune, to))

    router.include_router(_asset_routes(state))
    return router


def _asset_routes(state: ServerState) -> APIRouter:
    """Upload and download of a finetune's two files."""
    router = APIRouter()
    finetunes = state.finetunes

    @router.post("/ai/finetunes/{finetune}/finetune-assets", operation_id="upload_finetune_file")
    async def upload(request: Request, account: str, finetune: str) -> Response:
        check_spelling(request.query_params, "keep_other_file")
        keep_other_file = flag(request.query_params, "keep_other_file")
        found = await asyncio.to_thread(finetunes.find_own, account, finetune)
        llm = state.llm(found.model)
        with finetunes.staging.new_file() as staged:
            file_name = stored_name(await read_upload(request, staged, state.settings.max_adapter_file_bytes))
            is_gguf = is_gguf_name(file_name)
            if is_gguf and keep_other_file:
                raise BadInputError("keep_other_file: a GGUF adapter has no other file; upload it without")

            def add(verify: Verify) -> Finetune:
                if is_gguf:
                    return finetunes.add_gguf(account, found.id, file_name, staged, llm.config, verify)
                return finetunes.add_file(
                    account, found.id, file_name, staged, llm.config, verify, keep_other_file=keep_other_file
                )

            async with state.check_lock(found.model), _stand_in_named(state, found.model):
                now = await with_verifier(llm, add)
        if is_gguf:
            return success(uploaded_asset(now, WEIGHTS_FILE, now.files[WEIGHTS_FILE].sha256))
        return success(uploaded_asset(now, file_name, staged.sha256))

    @router.delete("/ai/finetunes/{finetune}/finetune-assets", operation_id="discard_finetune_upload")
    async def discard(account: str, finetune: str) -> Response:
        return success(finetune_summary(await asyncio.to_thread(finetunes.discard_upload, account, finetune)))

    @router.get("/ai/finetunes/{finetune}/finetune-assets/{file_name}", operation_id="download_finetune_file")
    @router.head("/ai/finetunes/{finetune}/finetune-assets/{file_name}")
    async def download(request: Request, account: str, finetune: str, file_name: str) -> Response:
        opened = await asyncio.to_thread(finetunes.open_file, account, finetune, file_name)
        return file_response(request, opened)

    return router


@asynccontextmanager
async def _stand_in_named(state: ServerState, model: str) -> AsyncIterator[None]:
    """Says in a refused adapter's message with which model it was compared, if that is not the model it is for."""
    try:
        yield
    except AdapterError as error:
        answering = state.stand_ins.get(model)
        if answering is None:
            raise
        raise AdapterError(f"{error} (compared with {answering}, which stands in for {model})") from error


def _read_creation(body: Any) -> CreateFinetune:
    try:
        creation = msgspec.convert(body, CreateFinetune)
    except msgspec.ValidationError as error:
        raise BadInputError(f"a finetune needs model and name, both strings: {error}") from error
    if len(creation.description or "") > MAX_DESCRIPTION_CHARS:
        raise BadInputError(f"description is longer than {MAX_DESCRIPTION_CHARS} characters")
    return creation


async def _check_no_body(request: Request, max_bytes: int) -> None:
    """Refuse a body: it might name a version, and ignoring it would roll back to another one."""
    with suppress(EmptyBodyError):
        if await read_json(request, max_bytes) not in ({}, None):
            raise BadInputError("the body of a rollback must be empty: send the version in the query, as ?version=1")


def _check_base(state: ServerState, model: str) -> None:
    if state.find_llm(model) is None:
        served = ", ".join(sorted(state.callable_models))
        raise FinetuneError(f"MODEL_NOT_SUPPORTED: this server has no weights for {model[:256]!r}; it serves {served}")
