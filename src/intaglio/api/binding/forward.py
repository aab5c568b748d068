"""Unwraps requests of a Worker's `env.AI` binding that come through a proxy, so that the routes see them as sent.

    wrangler up to 4.35   any method on A/ai/run/proxy; the header X-Forwarded holds the binding's URL
    miniflare             any method on / or on A/ai/run/proxy; MF-URL holds the URL, and each header of the binding
                          comes as MF-Header-<name>

The account of the path, if there is one, is passed on in the header `intaglio-account`.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from intaglio.api.http.auth import check_account
from intaglio.api.http.errors import binding_error_response, error_response
from intaglio.errors import BadInputError, RouteError

ACCOUNT_HEADER = "intaglio-account"
# path -> its operation in the OpenAPI document
RUN_PATHS = MappingProxyType({"/run": "run_for_binding", "/ai-gateway/run": "run_for_binding_by_gateway"})
MODELS_PATH = "/ai-api/models/search"

_PROXY_PATH = re.compile(r"/client/v4/accounts/([^/]+)/ai/run/proxy")
_WRAPPED_PREFIX = "mf-header-"
_CONNECTION_HEADERS = ("host", "connection", "content-length", "transfer-encoding", "expect")


class BindingForward:
    """Middleware: replaces a proxied request by the one that the binding sent, with its own path, query and headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                scope = unwrapped(scope)
            except RouteError as error:
                await error_response(Request(scope), error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class WebSocketRefusal:
    """Middleware: refuses WebSocket handshakes with the reason, since no route serves them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
        elif "websocket.http.response" in scope.get("extensions", {}):
            await _websocket_refused(scope)(scope, receive, send)
        else:  # a server that cannot send a response to a handshake closes it, with 403
            await send({"type": "websocket.close"})


def unwrapped(scope: Scope) -> Scope:
    """The request as the binding sent it; a request that is not proxied stays as it is.

    Raises RouteError for a URL that the binding does not use, and IdentifierError for an invalid account id.
    """
    headers = Headers(scope=scope)
    proxy = _PROXY_PATH.fullmatch(scope["path"])
    binding_url = headers.get("mf-url") if proxy or scope["path"] == "/" else None
    if binding_url is None and proxy:
        binding_url = headers.get("x-forwarded")
    if binding_url is None:
        return scope
    path, query = _path_and_query(binding_url)
    sent = _sent_headers(headers)
    if proxy:
        check_account(proxy[1])
        sent[ACCOUNT_HEADER] = proxy[1]
    return {**scope, "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": sent.raw}


def _path_and_query(url: str) -> tuple[str, str]:
    """Path and query of a URL that the binding may call. Raises RouteError."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise RouteError(f"The URL of the AI binding cannot be read: {error}") from error
    if parts.path not in (*RUN_PATHS, MODELS_PATH):
        raise RouteError(f"No route for that URI of the AI binding: {parts.path[:200]}")
    return parts.path, parts.query


def _sent_headers(proxied: Headers) -> MutableHeaders:
    """The proxy's own headers, which may have the token, with the binding's headers over them."""
    sent = MutableHeaders(raw=[(name, value) for name, value in proxied.raw if not name.startswith(b"mf-")])
    for name, value in proxied.items():
        inner = name.removeprefix(_WRAPPED_PREFIX)
        if inner != name and inner not in _CONNECTION_HEADERS:
            sent[inner] = value
    return sent


def _websocket_refused(scope: Scope) -> Response:
    return binding_error_response(
        HTTPConnection(scope),
        BadInputError("WebSockets are not supported: set stream in the inputs to get server-sent events"),
    )
