"""A streamed answer in the native format of Workers AI: server-sent events, each one `data: ` and a line of JSON.

    data: {"response":"Hel","p":"abcdefghijk"}

    data: {"response":"","usage":{...},"finish_reason":"stop"}

    data: [DONE]

No event names, no comments, no nulls: client parsers stumble over them. `p` is padding of random length, so that the
sizes of encrypted packets do not tell the lengths of the words in them.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from intaglio.api.disconnect import ClientGoneError, unless_gone
from intaglio.api.errors import error_item
from intaglio.api.run_record import RunRecord
from intaglio.errors import EngineError, IntaglioError

if TYPE_CHECKING:
    from intaglio.llm import Generation

logger = logging.getLogger(__name__)

PADDING_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
MIN_PADDING, MAX_PADDING = 3, 46

_DONE = b"data: [DONE]\n\n"
_PADDING = PADDING_ALPHABET * 2


def event(content: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(content) + b"\n\n"


def text_event(text: str) -> bytes:
    """A piece of the answer, padded."""
    length = MIN_PADDING + secrets.randbelow(MAX_PADDING - MIN_PADDING + 1)
    return event({"response": text, "p": _PADDING[:length]})


class RunStream(Response):
    """Sends a generation as it comes and aborts it when the client goes away.

    The response starts with the first token, so that whatever fails before it is still answered by an HTTP status. What
    fails later is told in an event with `errors`, and the stream ends without [DONE].
    """

    media_type = "text/event-stream"

    def __init__(self, generation: Generation, record: RunRecord, headers: Mapping[str, str]) -> None:
        super().__init__(headers={"cache-control": "no-cache", **headers})
        del self.headers["content-length"]
        self._generation = generation
        self._record = record
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        failed: BaseException | None = None
        try:
            await unless_gone(receive, self._pump(send))
        except ClientGoneError as error:
            failed = error
        except BaseException as error:
            failed = error
            raise
        finally:
            await self._generation.abort()
            self._record.close(failed)

    async def _pump(self, send: Send) -> None:
        try:
            async for delta in self._generation:
                self._record.note(delta)
                await self._start(send)
                if delta.text:
                    await _send(send, text_event(delta.text))
            end = self._record.end_chunk()
        except IntaglioError as error:
            await self._fail(send, error)
        except OSError:  # the server's way to say, on some versions, that nobody listens any more
            raise
        except Exception:
            logger.exception("run %s failed while streaming", self._record.request_id)
            await self._fail(send, EngineError("internal error; the server's log has the details"))
        else:
            await _send(send, event({"response": "", **end}) + _DONE)
            await _send(send, b"", more=False)

    async def _start(self, send: Send) -> None:
        if not self._started:
            self._started = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _fail(self, send: Send, error: IntaglioError) -> None:
        """Before the first byte the error becomes the answer; after it, the last event."""
        if not self._started:
            raise error
        item = error_item(error, self._record.request_id)
        await _send(send, event({"response": "", "errors": [item], "finish_reason": "error"}))
        await _send(send, b"", more=False)


async def _send(send: Send, body: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
