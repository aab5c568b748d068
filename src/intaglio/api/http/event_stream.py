"""Server-sent events of a running request: when the response starts, what ends it, and how the request is freed.

Each route's stream is a subclass, which differs in the content of its events. An event is `data: ` and a line of JSON,
without comments, which some client parsers cannot read, and with a name only where the form has one.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import msgspec
from msgspec import Struct
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from intaglio.api.http.disconnects import run_until_disconnected
from intaglio.errors import EngineError, IntaglioError

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"


def event(content: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(content) + b"\n\n"


def named_event(content: Struct) -> bytes:
    """One server-sent event with the name that its `type` has."""
    encoded = msgspec.json.encode(content)
    return b"event: " + str(content.__struct_config__.tag).encode() + b"\ndata: " + encoded + b"\n\n"


class EventStream(Response, ABC):
    """Sends events as they come, and ends the request when the client disconnects.

    The response starts with the first piece, so that an error before it still has an HTTP status. A later error is sent
    as an event, and the stream ends without [DONE].
    """

    media_type = "text/event-stream"

    def __init__(
        self, request_id: str, headers: Mapping[str, str], running: AbstractAsyncContextManager[object]
    ) -> None:
        """running: entered for the stream; its exit frees the request, if it still runs, and writes the log line."""
        super().__init__(headers={"cache-control": "no-cache", **headers})
        del self.headers["content-length"]
        self.request_id = request_id
        self._running = running
        self._started = False

    @abstractmethod
    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The events, one or more in a piece. An empty piece starts the response and sends nothing."""

    @abstractmethod
    def error_event(self, error: IntaglioError) -> bytes:
        """The last event of a stream that failed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await run_until_disconnected(receive, self._send_pieces(send), self._running)

    async def _send_pieces(self, send: Send) -> None:
        try:
            async with aclosing(self.pieces()) as pieces:
                async for piece in pieces:
                    await self._start_response(send)
                    if piece:
                        await _send_body(send, piece)
        except IntaglioError as error:
            await self._send_error(send, error)
        except OSError:  # some versions of the server raise it when the client has disconnected
            raise
        except Exception:
            logger.exception("run %s failed while streaming", self.request_id)
            await self._send_error(send, EngineError("internal error; the server's log has the details"))
        else:
            await _send_body(send, b"", more=False)

    async def _start_response(self, send: Send) -> None:
        if not self._started:
            self._started = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _send_error(self, send: Send, error: IntaglioError) -> None:
        """Before the first byte the error becomes the response; after it, the last event."""
        if not self._started:
            raise error
        await _send_body(send, self.error_event(error))
        await _send_body(send, b"", more=False)


async def _send_body(send: Send, body: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
