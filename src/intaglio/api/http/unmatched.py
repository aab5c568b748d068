"""Requests that match no route: an unknown path, or a known one with another method.

The response to HEAD is that to GET without its body; the response to OPTIONS lists the path's methods. So no route
needs to handle them.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Router
from starlette.types import Message, Receive, Scope, Send

from intaglio.errors import MethodNotAllowedError, RouteError

CATCH_ALL = "unmatched"  # name of the route that matches all other paths; it does not count as a route here
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def unmatched_response(request: Request, router: Router) -> Response:
    """The response to HEAD or OPTIONS on a path that has a route. Raises MethodNotAllowedError or RouteError."""
    allowed = allowed_methods(router.routes, request.scope)
    if not allowed:
        raise RouteError(f"No route for that URI: {request.url.path[:200]}")
    if request.method == "OPTIONS":
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"allow": ", ".join(allowed)})
    if request.method == "HEAD" and "GET" in allowed:
        return _HeadResponse(router)
    raise MethodNotAllowedError(request.method, allowed)


def allowed_methods(routes: Sequence[BaseRoute], scope: Scope) -> tuple[str, ...]:
    """The methods of the routes that match the scope's path; () if the path is unknown."""
    own = [route for route in routes if not isinstance(route, Mount) and getattr(route, "name", "") != CATCH_ALL]
    found = [method for method in _METHODS if _matches(own, {**scope, "method": method})]
    if not found:
        return ()
    return (*found, *(["HEAD"] if "GET" in found else []), "OPTIONS")


def _matches(routes: Sequence[BaseRoute], scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in routes)


class _HeadResponse(Response):
    """Runs the GET route and drops the body of its response."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._router({**scope, "method": "GET"}, receive, send_head)
