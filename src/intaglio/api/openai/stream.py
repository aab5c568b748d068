"""A streamed answer in OpenAI's form.

    data: {"id":"chatcmpl-…",…,"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},…}]}

    data: {"id":"chatcmpl-…",…,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{…}}

    data: [DONE]

Every chunk has a choice, but for the last one of a caller who asked for usage: naive clients take choices[0] unseen.
Usage stands in one chunk only, since some clients add up what they find.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from intaglio.api.http.errors import openai_error
from intaglio.api.http.event_stream import DONE, EventStream, event
from intaglio.api.inference.run_log import usage_json
from intaglio.api.openai.choice import Said
from intaglio.api.openai.output import AnswerForm
from intaglio.api.openai.run import Choices, deltas
from intaglio.errors import IntaglioError


class OpenAIStream(EventStream):
    """Sends all choices of a request as they come, mixed; each chunk says which choice it belongs to."""

    def __init__(self, choices: Choices, form: AnswerForm, *, include_usage: bool) -> None:
        super().__init__(choices.request_id, choices.headers)
        self._choices = choices
        self._form = form
        self._include_usage = include_usage
        self._readers = choices.readers()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        num_open = len(self._readers)
        async with aclosing(deltas(self._choices.runs)) as news:
            async for index, delta in news:
                said = self._readers[index].take(delta)
                num_open -= said.reason is not None
                yield self._chunks(index, said, is_last=num_open == 0)
        usage = event(self._form.chunk([], usage_json(self._choices.usage))) if self._include_usage else b""
        yield usage + DONE

    def error_event(self, error: IntaglioError) -> bytes:
        """The object that OpenAI's own clients raise for."""
        return event({"error": openai_error(error, self.request_id)})

    async def end(self, failed: BaseException | None) -> None:
        await self._choices.end(failed)

    def _chunks(self, index: int, said: Said, *, is_last: bool) -> bytes:
        """None, one, or a piece and the end of a choice; the very last end has the usage of the whole request."""
        chunks = b""
        if said.text or said.tokens or said.calls:
            chunks = event(self._form.chunk([self._form.piece(index, replace(said, reason=None))]))
        if said.reason is None:
            return chunks
        usage = usage_json(self._choices.usage) if is_last and not self._include_usage else None
        return chunks + event(self._form.chunk([self._form.last(index, said.reason)], usage))
