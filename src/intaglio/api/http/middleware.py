"""Middleware for every request: trailing slashes, and unexpected exceptions."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Callable

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from intaglio.errors import EngineError, IntaglioError, StorageFullError

logger = logging.getLogger(__name__)


class TrailingSlashMiddleware:
    """Removes one slash from the end of a path. After a redirect curl would not send its POST body again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/" and scope["path"].endswith("/"):
            scope = {**scope, "path": scope["path"][:-1]}
        await self._app(scope, receive, send)


class InternalErrorMiddleware:
    """Logs the traceback of an unexpected exception and sends the response of an internal error."""

    def __init__(self, app: ASGIApp, error_response: Callable[[HTTPConnection, IntaglioError], Response]) -> None:
        self._app = app
        self._error_response = error_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except ClientDisconnect:
            logger.info("%s %s: the client disconnected before its request was read", scope["method"], scope["path"])
        except Exception as fault:
            if scope["type"] != "http":
                raise
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if started:  # too late for a status; the server closes the connection on an unfinished response
                raise
            response = self._error_response(Request(scope), _to_intaglio_error(fault))
            await response(scope, receive, send)


def _to_intaglio_error(fault: Exception) -> IntaglioError:
    if _is_full_disk(fault):
        return StorageFullError()
    return EngineError("internal error; the server's log has the details")


def _is_full_disk(fault: BaseException | None) -> bool:
    """Whether the exception or one of its causes says that the disk or the quota is full."""
    while fault is not None:
        if isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(fault, sqlite3.Error) and getattr(fault, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        fault = fault.__cause__
    return False
