"""Requests that match no route: an unknown path, or a known one with another method.

The response to HEAD is that to GET without its body; the response to OPTIONS lists the path's methods. So no route
needs to handle them. The error for an unknown path lists the routes that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Router
from starlette.types import Message, Receive, Scope, Send

from intaglio.errors import MethodNotAllowedError, RouteError

CATCH_ALL = "unmatched"  # name of the route that matches all other paths; it does not count as a route here
ASKED_PATH = "intaglio.asked_path"  # key of the scope: the path as it was sent, where an alias has replaced it
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_SHOWN_CHARACTERS = 200  # of a path, in a message


def unmatched_response(
    request: Request, router: Router, list_paths: Callable[[], Sequence[str]], prefixes: Sequence[str] = ()
) -> Response:
    """The response to HEAD or OPTIONS on a path that has a route. Raises MethodNotAllowedError or RouteError.

    list_paths  gives the paths of the routes, with {names} for their parameters
    prefixes    what callers leave out at the start of a path; the error says so if the path has a route with one
    """
    allowed = allowed_methods(router.routes, request.scope)
    if not allowed:
        path = request.scope["path"]
        asked = request.scope.get(ASKED_PATH, path)
        advice = _meant_path(router.routes, request.scope, prefixes) or _routes_there(path, list_paths(), prefixes)
        raise RouteError(f"No route for that URI: {asked[:_SHOWN_CHARACTERS]}{advice}")
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


def _meant_path(routes: Sequence[BaseRoute], scope: Scope, prefixes: Sequence[str]) -> str:
    """A sentence with the path that was probably meant: one that lacks a prefix; "" if there is none."""
    for prefix in prefixes:
        if allowed_methods(routes, {**scope, "path": prefix + scope["path"]}):
            return f". Did you mean {(prefix + scope['path'])[:_SHOWN_CHARACTERS]}?"
    return ""


def _routes_there(path: str, templates: Sequence[str], prefixes: Sequence[str]) -> str:
    """A sentence with the routes beside the path, with or without a prefix; "" if there are none."""
    for prefix in ("", *prefixes):
        common, listed = _routes_beside(templates, _parts(prefix + path))
        if len(common) > len(_parts(prefix)):
            return f". Below /{'/'.join(common)[:_SHOWN_CHARACTERS]} there are: {', '.join(listed)}"
    return ""


def _routes_beside(templates: Sequence[str], parts: Sequence[str]) -> tuple[Sequence[str], list[str]]:
    """The longest beginning of the path that some route shares, and what follows it in those routes."""
    split = [_parts(template) for template in templates]
    shared = [_num_shared(template, parts) for template in split]
    longest = max(shared, default=0)
    rests = ["/".join(one[longest:]) for one, count in zip(split, shared, strict=True) if count == longest]
    return parts[:longest], [rest for rest in rests if rest]


def _num_shared(template: Sequence[str], parts: Sequence[str]) -> int:
    """How many parts at the start of a route's template fit the path."""
    fits = [one.startswith("{") or one == part for one, part in zip(template, parts, strict=False)]
    return fits.index(False) if False in fits else len(fits)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


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
