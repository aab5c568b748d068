"""A streamed response in OpenAI's form.

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

from intaglio.api.http.errors import OpenAIErrorEvent, openai_error
from intaglio.api.http.event_stream import DONE, EventStream, event
from intaglio.api.openai.choice_reader import ChoiceDelta
from intaglio.api.openai.choices import Choices
from intaglio.api.openai.output import ResponseForm
from intaglio.errors import IntaglioError


class OpenAIStream(EventStream):
    """Sends all choices of a request as they come, mixed; each chunk says which choice it belongs to."""

    def __init__(
        self, choices: Choices, form: ResponseForm, *, include_usage: bool, usage_in_each: bool = False
    ) -> None:
        super().__init__(choices.request_id, choices.headers, choices)
        self._choices = choices
        self._form = form
        self._include_usage = include_usage
        self._usage_in_each = usage_in_each
        self._readers = choices.readers()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        num_open = len(self._readers)
        async with aclosing(self._choices.deltas()) as deltas:
            async for index, delta in deltas:
                piece = self._readers[index].take(delta)
                num_open -= piece.reason is not None
                yield self._chunks(index, piece, is_last=num_open == 0)
        usage = event(self._form.chunk([], self._choices.usage)) if self._include_usage else b""
        yield usage + DONE

    def error_event(self, error: IntaglioError) -> bytes:
        """The object that OpenAI's own clients raise for."""
        return event(OpenAIErrorEvent(openai_error(error, self.request_id)))

    def _chunks(self, index: int, piece: ChoiceDelta, *, is_last: bool) -> bytes:
        """None, one, or a piece and the end of a choice; the very last end has the usage of the whole request."""
        chunks = b""
        if piece.text or piece.tokens or piece.calls or piece.prompt:
            so_far = self._choices.usage_so_far if self._usage_in_each else None
            chunks = event(self._form.chunk([self._form.piece(index, replace(piece, reason=None))], so_far))
        if piece.reason is None:
            return chunks
        usage = self._choices.usage_so_far if self._usage_in_each else None
        if is_last and not self._include_usage:
            usage = self._choices.usage
        return chunks + event(self._form.chunk([self._form.last(index, piece.reason)], usage))
