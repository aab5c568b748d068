"""The application: routes, who may use them, and what an error looks like."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from intaglio.api.account import account_token_routes, token_routes
from intaglio.api.auth import check_account, check_token
from intaglio.api.catalog import catalog_routes
from intaglio.api.envelope import JsonAnswer
from intaglio.api.errors import error_answer
from intaglio.api.finetunes import finetune_routes
from intaglio.api.middleware import CrashAnswer, TrailingSlash
from intaglio.api.schema import RunSchema
from intaglio.api.state import ServerState
from intaglio.api.workers_ai import run_routes
from intaglio.errors import IntaglioError, MethodNotAllowedError, RouteError
from intaglio.version import __version__

API_ROOT = "/client/v4"
ACCOUNT_ROOT = "/accounts/{account}"
ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
PLAYGROUND = Path(__file__).parent / "playground"


def create_app(state: ServerState) -> FastAPI:
    """The ASGI application over loaded models. Closes the state when the server shuts down."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await state.close()

    app = FastAPI(
        title="Intaglio", version=__version__, lifespan=lifespan, redirect_slashes=False, docs_url=None, redoc_url=None
    )
    app.add_middleware(TrailingSlash)
    app.add_middleware(CrashAnswer)
    app.add_exception_handler(IntaglioError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.include_router(_health(state))
    app.include_router(_api(state), prefix=API_ROOT)
    app.add_api_route(API_ROOT + "/{rest:path}", _nowhere, methods=ALL_METHODS, include_in_schema=False)
    app.mount("/", StaticFiles(directory=PLAYGROUND, html=True, check_dir=False))
    return app


def _api(state: ServerState) -> APIRouter:
    """Everything that needs a token."""

    async def authenticate(request: Request) -> None:
        check_token(request.headers, state.settings.api_tokens)

    async def identify(account: str) -> None:
        check_account(account)

    schema = RunSchema()
    api = APIRouter(dependencies=[Depends(authenticate)], redirect_slashes=False)
    account_routes = (
        run_routes(state, schema), catalog_routes(state, schema), finetune_routes(state), account_token_routes(),
    )  # fmt: skip
    for routes in account_routes:
        api.include_router(routes, prefix=ACCOUNT_ROOT, dependencies=[Depends(identify)])
    api.include_router(token_routes())
    return api


def _health(state: ServerState) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> Response:
        status = HTTPStatus.OK if state.ready else HTTPStatus.SERVICE_UNAVAILABLE
        models = {name: "ready" if llm.ready else "starting" for name, llm in state.models.items()}
        return JsonAnswer({"status": "ok" if state.ready else "starting", "models": models}, status_code=status)

    return router


async def _nowhere(request: Request) -> Response:
    """The path is unknown, or known with another method: another route then matches it in part."""
    matches = [route.matches(request.scope)[0] for route in request.app.router.routes]
    raise _method_not_allowed(request) if Match.PARTIAL in matches else _unknown_path(request)


def _unknown_path(request: Request) -> RouteError:
    return RouteError(f"No route for that URI: {request.url.path[:200]}")


def _method_not_allowed(request: Request) -> MethodNotAllowedError:
    return MethodNotAllowedError(f"{request.method} not supported for requested URI.")


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, IntaglioError)
    return error_answer(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: outside the API nearly always a path of the playground that is not there."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return error_answer(request, _method_not_allowed(request))
    if error.status_code == HTTPStatus.NOT_FOUND:
        return error_answer(request, _unknown_path(request))
    raise error
