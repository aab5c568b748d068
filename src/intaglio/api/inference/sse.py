"""A streamed answer in the native format of Workers AI.

    data: {"response":"Hel","p":"abcdefghijk"}

    data: {"response":"","usage":{...},"finish_reason":"stop"}

    data: [DONE]

No nulls, and no `tool_calls` without a call: client parsers stumble over them. `p` is padding of random length, so that
the sizes of encrypted packets do not tell the lengths of the words in them. With tools the text is held back while it
may still become a call; a call comes whole, in one event:

    data: {"response":"","tool_calls":[{"index":0,"name":"get_weather","arguments":{"city":"Paris"}}]}
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator

from intaglio.api.http.errors import error_item
from intaglio.api.http.event_stream import DONE, EventStream, event
from intaglio.api.inference.run import TOOL_CALLS, Run, end_run, native_calls
from intaglio.errors import IntaglioError
from intaglio.text.tool_calls import CallHold

PADDING_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
MIN_PADDING, MAX_PADDING = 3, 46

_PADDING = PADDING_ALPHABET * 2


def text_event(text: str) -> bytes:
    """A piece of the answer, padded."""
    length = MIN_PADDING + secrets.randbelow(MAX_PADDING - MIN_PADDING + 1)
    return event({"response": text, "p": _PADDING[:length]})


class RunStream(EventStream):
    """Sends a running request's answer as it comes."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.record.request_id, run.headers)
        self._run = run

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        hold = CallHold() if self._run.asked.tools else None
        async for delta in self._run.generation:
            self._run.record.note(delta)
            text = hold.push(delta.text) if hold else delta.text
            yield text_event(text) if text else b""
        end = self._run.record.end_chunk()
        calls = self._run.tool_calls(hold.held) if hold and hold.held else []
        if calls:
            # The AI SDK's provider joins calls that have no index of their own into one.
            numbered = [{"index": index, **call} for index, call in enumerate(native_calls(calls))]
            yield event({"response": "", "tool_calls": numbered})
            end["finish_reason"] = TOOL_CALLS
        elif hold and hold.held:
            yield text_event(hold.held)
        yield event({"response": "", **end}) + DONE

    def error_event(self, error: IntaglioError) -> bytes:
        return event({"response": "", "errors": [error_item(error, self.request_id)], "finish_reason": "error"})

    async def end(self, failed: BaseException | None) -> None:
        await end_run(self._run, failed)
