"""What the server is doing now: requests, adapters, memory and counters of each engine. A browser gets its page."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from intaglio.api.http.auth import check_token
from intaglio.api.http.envelope import JsonResponse
from intaglio.api.state import ServerState
from intaglio.errors import EngineDeadError
from intaglio.llm.running_model import RunningModel
from intaglio.status import EngineStatus
from intaglio.version import __version__

PAGE = "./#/now"


class ServerStatus(Struct, frozen=True):
    """models: None for one whose engine is being started, or does not respond."""

    version: str
    uptime_s: Annotated[float, Meta(ge=0, description="seconds; the difference of two reads is the time between them")]
    models: dict[str, EngineStatus | None]


def status_routes(state: ServerState) -> APIRouter:
    router = APIRouter()

    async def authenticate(request: Request) -> None:
        if not _is_browser(request):
            check_token(request.headers, state.settings.api_tokens)

    @router.get("/status", operation_id="read_status", dependencies=[Depends(authenticate)])
    async def read_status(request: Request) -> Response:
        if _is_browser(request):
            return RedirectResponse(PAGE, HTTPStatus.SEE_OTHER)
        found = await asyncio.gather(*(_status_of(llm) for llm in state.models.values()))
        uptime_s = (datetime.now(UTC) - state.started_at).total_seconds()
        models = dict(zip(state.models, found, strict=True))
        return JsonResponse(
            ServerStatus(__version__, max(0.0, uptime_s), models), headers={"cache-control": "no-store"}
        )

    return router


def _is_browser(request: Request) -> bool:
    """Whether a person asks, who follows a link: programs do not say that they want HTML."""
    return "text/html" in request.headers.get("accept", "")


async def _status_of(llm: RunningModel) -> EngineStatus | None:
    try:
        return await llm.status()
    except EngineDeadError:
        return None
