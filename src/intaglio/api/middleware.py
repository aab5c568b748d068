"""What happens to every request before and after its route."""

from __future__ import annotations

import logging

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from intaglio.api.errors import error_answer
from intaglio.errors import EngineError

logger = logging.getLogger(__name__)

API_PREFIX = "/client/"


class TrailingSlash:
    """Takes one slash off the end of an API path. A redirect would cost curl users their POST body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(API_PREFIX) and scope["path"].endswith("/"):
            scope = {**scope, "path": scope["path"][:-1]}
        await self._app(scope, receive, send)


class CrashAnswer:
    """Turns an exception that nobody foresaw into a logged traceback and the envelope of an internal error."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except ClientDisconnect:
            logger.info("%s %s: the client left before its request was read", scope["method"], scope["path"])
        except Exception:
            if scope["type"] != "http":
                raise
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if started:  # too late for a status; the server closes the connection on an unfinished answer
                raise
            error = EngineError("internal error; the server's log has the details")
            answer = error_answer(Request(scope), error)
            await answer(scope, receive, send)
