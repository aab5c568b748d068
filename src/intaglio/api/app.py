"""The application: its routes, the token and account checks, and the form of errors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, Response

from intaglio.api.account.routes import account_token_routes, token_routes
from intaglio.api.aliases import RouteAliases
from intaglio.api.binding.forward import RUN_PATHS, BindingForward, WebSocketRefusal
from intaglio.api.binding.routes import binding_routes
from intaglio.api.finetunes.routes import finetune_routes
from intaglio.api.health import health_routes
from intaglio.api.http.auth import LOCAL_ACCOUNT, check_account, check_token
from intaglio.api.http.envelope import JsonResponse
from intaglio.api.http.errors import (
    anthropic_error_response,
    binding_error_response,
    error_response,
    openai_error_response,
)
from intaglio.api.http.middleware import InternalErrorMiddleware, TrailingSlashMiddleware
from intaglio.api.http.unmatched import CATCH_ALL, unmatched_response
from intaglio.api.inference.batch_items import batch_runner
from intaglio.api.inference.model_routes import model_routes
from intaglio.api.inference.routes import run_routes
from intaglio.api.inference.schema import RunSchema
from intaglio.api.messages.routes import message_routes
from intaglio.api.openai.models import openai_model_routes
from intaglio.api.openai.routes import openai_routes
from intaglio.api.openai.tokenize import tokenize_routes
from intaglio.api.openapi.document import openapi_document, route_paths
from intaglio.api.reference.page import POLICY, reference_page
from intaglio.api.responses.routes import response_routes
from intaglio.api.state import ServerState
from intaglio.api.status import status_routes
from intaglio.errors import IntaglioError, RouteError

API_ROOT = "/client/v4"
ACCOUNT_ROOT = "/accounts/{account}"
# Callers leave these out, since a hosted API has an address of its own.
LEFT_OUT = (API_ROOT + ACCOUNT_ROOT.format(account=LOCAL_ACCOUNT), API_ROOT)
ANTHROPIC_PATH = re.compile(rf"{API_ROOT}/accounts/[^/]*/ai/v1/messages(/.*)?")
OPENAI_PATH = re.compile(rf"{API_ROOT}/accounts/[^/]*/ai/v1(/.*)?")
ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
PLAYGROUND = Path(__file__).parent / "playground"


def create_app(state: ServerState) -> FastAPI:
    """The ASGI application over loaded models. Runs batches while it is up, and closes the state at its end."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        runner = batch_runner(state, RunSchema(state.settings.run_max_tokens))
        runner.start()
        for model_id, llm in state.models.items():
            state.background_verification.begin(state.finetunes.list_demos(model_id), llm)
        try:
            yield
        finally:
            await runner.stop()
            await state.close()

    app = FastAPI(lifespan=lifespan, redirect_slashes=False, openapi_url=None)
    app.add_middleware(BindingForward)
    app.add_middleware(TrailingSlashMiddleware)
    app.add_middleware(WebSocketRefusal)
    app.add_middleware(InternalErrorMiddleware, error_response=_error_response)
    app.add_middleware(RouteAliases)
    app.add_exception_handler(IntaglioError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.include_router(_public_router(state))
    app.include_router(status_routes(state))
    app.include_router(_binding_router(state))
    app.include_router(_api_router(state), prefix=API_ROOT)
    app.add_api_route(
        API_ROOT + "/{rest:path}", _unmatched, methods=ALL_METHODS, name=CATCH_ALL, include_in_schema=False
    )
    app.mount("/", StaticFiles(directory=PLAYGROUND, html=True, check_dir=False))
    return app


def _api_router(state: ServerState) -> APIRouter:
    """Everything below API_ROOT; a token is needed."""

    async def authenticate(request: Request) -> None:
        check_token(request.headers, state.settings.api_tokens)

    async def identify(account: str) -> None:
        check_account(account)

    schema = RunSchema(state.settings.run_max_tokens)
    api = APIRouter(dependencies=[Depends(authenticate)], redirect_slashes=False)
    account_routes = (
        run_routes(state, schema), model_routes(state, schema), finetune_routes(state), account_token_routes(),
        openai_routes(state), openai_model_routes(state), tokenize_routes(state), message_routes(state),
        response_routes(state),
    )  # fmt: skip
    for routes in account_routes:
        api.include_router(routes, prefix=ACCOUNT_ROOT, dependencies=[Depends(identify)])
    api.include_router(token_routes())
    return api


def _binding_router(state: ServerState) -> APIRouter:
    """The routes of a Worker's binding, at the server's root; a token is needed."""

    async def authenticate(request: Request) -> None:
        check_token(request.headers, state.settings.api_tokens)

    router = APIRouter(dependencies=[Depends(authenticate)], redirect_slashes=False)
    router.include_router(binding_routes(state, RunSchema(state.settings.run_max_tokens)))
    return router


def _public_router(state: ServerState) -> APIRouter:
    """The health check, and the OpenAPI document as JSON and as a page, which need no token."""
    router = health_routes(state)

    @cache
    def document(app: FastAPI) -> dict[str, Any]:
        return openapi_document(
            app.routes,
            RunSchema(state.settings.run_max_tokens),
            model=next(iter(state.models)),
            needs_token=bool(state.settings.api_tokens),
        )

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        return JsonResponse(await asyncio.to_thread(document, request.app))

    @router.get("/docs", include_in_schema=False)
    async def reference(request: Request) -> Response:
        root = "../" if request.scope["raw_path"].endswith(b"/") else ""
        server = str(request.base_url).rstrip("/")
        page = await asyncio.to_thread(lambda: reference_page(document(request.app), server=server, root=root))
        return HTMLResponse(page, headers={"content-security-policy": POLICY})

    return router


async def _unmatched(request: Request) -> Response:
    return _unmatched_response(request)


def _unmatched_response(request: Request) -> Response:
    app: FastAPI = request.app

    def list_paths() -> list[str]:
        """Found at the first unknown path: it takes some milliseconds."""
        if not hasattr(app.state, "route_paths"):
            app.state.route_paths = route_paths(app.routes)
        paths: list[str] = app.state.route_paths
        return paths

    return unmatched_response(request, app.router, list_paths, LEFT_OUT)


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, IntaglioError)
    return _error_response(request, error)


def _error_response(request: HTTPConnection, error: IntaglioError) -> Response:
    """The error in the form of the route's API: the binding's, Anthropic's, OpenAI's or the envelope."""
    path = request.url.path
    if path in RUN_PATHS:
        return binding_error_response(request, error)
    if ANTHROPIC_PATH.fullmatch(path):
        return anthropic_error_response(request, error)
    return (openai_error_response if OPENAI_PATH.fullmatch(path) else error_response)(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Responses to what the framework refuses: an unknown path, or a method that the path does not have."""
    assert isinstance(error, HTTPException)
    if error.status_code not in (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_FOUND):
        raise error
    try:
        return _unmatched_response(request)
    except RouteError as refusal:
        return _error_response(request, refusal)
