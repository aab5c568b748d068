"""A streamed response in the form of OpenAI's Responses API: named events with ascending numbers, no [DONE].

    response.created, response.in_progress
    response.output_item.added                                a message, or a call of a tool
        response.content_part.added                           of a message: its text, piece by piece
        response.output_text.delta …, response.output_text.done
        response.content_part.done
        response.function_call_arguments.delta, ….done        of a call: its arguments, whole
    response.output_item.done
    response.completed, or response.incomplete, or response.failed

The last event has the whole response, and is sent after the response has been stored.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from intaglio.api.http.errors import error_item
from intaglio.api.http.event_stream import EventStream, named_event
from intaglio.api.openai.choice_reader import ChoiceDelta
from intaglio.api.openai.choices import Choices
from intaglio.api.openai.logprobs import chat_logprobs
from intaglio.api.responses import shapes
from intaglio.api.responses.output import ResponseForm, call_item, output_text
from intaglio.api.responses.shapes import FunctionCallItem, Item, OutputText, ResponseObject
from intaglio.completion import TokenLogprob
from intaglio.errors import IntaglioError
from intaglio.text.tools import ToolCall

Store = Callable[[ResponseObject, Sequence[Item]], Awaitable[None]]
_Event = TypeVar("_Event", bound=msgspec.Struct)


class ResponseStream(EventStream):
    """Sends the only choice of a request as it comes. store: called with the response before its last event."""

    def __init__(self, choices: Choices, form: ResponseForm, store: Store) -> None:
        super().__init__(choices.request_id, choices.headers, choices)
        self._choices = choices
        self._form = form
        self._store = store
        self._num_events = 0
        self._text = ""
        self._tokens: list[TokenLogprob] = []  # of the text so far, if their logprobs were asked for
        self._held: list[TokenLogprob] = []  # tokens whose text is not sent yet
        self._is_open = False  # the item of the text

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        (reader,) = self._choices.readers()
        begun = False
        async with aclosing(self._choices.deltas()) as deltas:
            async for _, delta in deltas:
                events = b"" if begun else self._begin()
                begun = True
                choice = reader.take(delta)
                self._held += choice.tokens
                events += self._text_events(choice.text) if choice.text else b""
                yield events
                if choice.reason is not None:
                    yield await self._end(choice)

    def error_event(self, error: IntaglioError) -> bytes:
        """The response as it failed."""
        return self._event(shapes.Failed, response=self._form.failed(error_item(error, self.request_id).message))

    def _begin(self) -> bytes:
        begun = self._form.begun()
        return self._event(shapes.Created, response=begun) + self._event(shapes.InProgress, response=begun)

    def _text_events(self, text: str) -> bytes:
        opening = b"" if self._is_open else self._open_text()
        self._text += text
        tokens, self._held = self._held, []
        self._tokens += tokens
        logprobs = chat_logprobs(tokens).content
        return opening + self._event(shapes.OutputTextPiece, **self._place(), delta=text, logprobs=logprobs)

    def _open_text(self) -> bytes:
        self._is_open = True
        item = self._form.opened_message()
        added = self._event(shapes.ItemAdded, output_index=0, item=item)
        return added + self._event(shapes.PartAdded, **self._place(), part=OutputText(""))

    async def _end(self, choice: ChoiceDelta) -> bytes:
        whole = replace(choice, text=self._text, tokens=[*self._tokens, *self._held])
        items: Sequence[Item]
        if whole.calls:
            items, events = self._call_events(whole.calls)
        else:
            items = self._form.items(whole)
            events = (b"" if self._is_open else self._open_text()) + self._close_text(whole)
        response = self._form.ended(items, whole, self._choices.usage)
        await self._store(response, items)
        last = shapes.Cut if response.status == "incomplete" else shapes.Completed
        return events + self._event(last, response=response)

    def _close_text(self, whole: ChoiceDelta) -> bytes:
        part = output_text(whole)
        return (
            self._event(shapes.TextDone, **self._place(), text=part.text, logprobs=part.logprobs)
            + self._event(shapes.PartDone, **self._place(), part=part)
            + self._event(shapes.ItemDone, output_index=0, item=self._form.message(whole))
        )

    def _call_events(self, calls: Sequence[ToolCall]) -> tuple[list[FunctionCallItem], bytes]:
        items, events = [call_item(call) for call in calls], b""
        for index, item in enumerate(items):
            place = {"item_id": item.id, "output_index": index}
            opened = msgspec.structs.replace(item, arguments="", status="in_progress")
            events += self._event(shapes.ItemAdded, output_index=index, item=opened)
            events += self._event(shapes.ArgumentsPiece, **place, delta=item.arguments)
            events += self._event(shapes.ArgumentsDone, **place, name=item.name, arguments=item.arguments)
            events += self._event(shapes.ItemDone, output_index=index, item=item)
        return items, events

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._form.message_id, "output_index": 0, "content_index": 0}

    def _event(self, kind: type[_Event], **fields: Any) -> bytes:
        number = self._num_events
        self._num_events += 1
        return named_event(kind(sequence_number=number, **fields))
