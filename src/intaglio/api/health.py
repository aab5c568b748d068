"""The health check: whether every engine is ready. It needs no token."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter
from msgspec import Meta, Struct
from starlette.responses import Response

from intaglio.api.http.envelope import JsonResponse
from intaglio.api.state import ServerState
from intaglio.errors import DatabaseError

Status = Literal["ok", "starting", "database does not answer"]
OpenItems = Annotated[int, Meta(ge=0, description="requests of batches that wait or run")]


class Health(Struct, frozen=True):
    """models: whether the engine of each is ready. batch_items: None if the database does not respond."""

    status: Status
    models: dict[str, Literal["ready", "starting"]]
    batch_items: OpenItems | None


def health_routes(state: ServerState) -> APIRouter:
    router = APIRouter()

    @router.get("/health", operation_id="read_health")
    async def health() -> Response:
        status: Status = "ok" if state.ready else "starting"
        try:
            open_items = await asyncio.to_thread(state.batches.num_open_items)
        except DatabaseError:
            status, open_items = "database does not answer", None
        found = Health(
            status, {name: "ready" if llm.ready else "starting" for name, llm in state.models.items()}, open_items
        )
        return JsonResponse(found, HTTPStatus.OK if status == "ok" else HTTPStatus.SERVICE_UNAVAILABLE)

    return router
