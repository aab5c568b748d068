"""A streamed response in the native format of Workers AI.

    data: {"response":"Hel","p":"abcdefghijk"}

    data: {"response":"","usage":{...},"finish_reason":"stop"}

    data: [DONE]

No nulls, and no `tool_calls` without a call: some client parsers fail on them. `p` is padding of random length, so that
the sizes of encrypted packets do not reveal the lengths of words. With tools, text is held back while it may still
become a call; a call is sent whole, in one event:

    data: {"response":"","tool_calls":[{"index":0,"name":"get_weather","arguments":{"city":"Paris"}}]}
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from intaglio.api.http.errors import error_item
from intaglio.api.http.event_stream import DONE, EventStream, event
from intaglio.api.inference.results import IndexedToolCall, RunEvent
from intaglio.api.inference.running_request import TOOL_CALLS, RunningRequest
from intaglio.errors import IntaglioError
from intaglio.text.tool_calls import ToolCallBuffer

PADDING_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
MIN_PADDING, MAX_PADDING = 3, 46

_PADDING = PADDING_ALPHABET * 2


def text_event(text: str) -> bytes:
    """A piece of the completion, padded."""
    length = MIN_PADDING + secrets.randbelow(MAX_PADDING - MIN_PADDING + 1)
    return event(RunEvent(response=text, p=_PADDING[:length]))


class RunStream(EventStream):
    """Sends a running request's completion as it comes."""

    def __init__(self, running: RunningRequest) -> None:
        super().__init__(running.log.request_id, running.headers, running)
        self._request = running

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        buffer = ToolCallBuffer() if self._request.run_input.tools else None
        async with aclosing(self._request.deltas()) as deltas:
            async for delta in deltas:
                text = buffer.push(delta.text) if buffer else delta.text
                yield text_event(text) if text else b""
        usage, reason = self._request.log.end()
        calls = self._request.tool_calls(buffer.held) if buffer and buffer.held else []
        if calls:
            # The AI SDK's provider merges calls without an index.
            numbered = [IndexedToolCall(index, call.name, call.arguments) for index, call in enumerate(calls)]
            yield event(RunEvent(response="", tool_calls=numbered))
            reason = TOOL_CALLS
        elif buffer and buffer.held:
            yield text_event(buffer.held)
        yield event(RunEvent(response="", usage=usage, finish_reason=reason)) + DONE

    def error_event(self, error: IntaglioError) -> bytes:
        return event(RunEvent(response="", errors=[error_item(error, self.request_id)], finish_reason="error"))
