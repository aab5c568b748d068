"""A streamed message in Anthropic's form: named events, no [DONE].

    event: message_start          the message, without content, and how many tokens the prompt has
    event: content_block_start    index 0: a text, or a call of a tool
    event: content_block_delta    a piece of the text; the arguments of a call, whole
    event: content_block_stop
    event: message_delta          why it ended, and the usage
    event: message_stop

A message is one text, or one or more calls.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from intaglio.api.http.errors import anthropic_error_event
from intaglio.api.http.event_stream import EventStream, named_event
from intaglio.api.messages.output import (
    BlockDelta,
    BlockStart,
    BlockStop,
    InputPiece,
    MessageDelta,
    MessageForm,
    MessageStop,
    TextBlock,
    TextPiece,
    message_end,
    message_usage,
    tool_use,
)
from intaglio.api.openai.choices import Choices
from intaglio.errors import IntaglioError
from intaglio.text.tools import ToolCall


class MessageStream(EventStream):
    """Sends the only choice of a request as it comes."""

    def __init__(self, choices: Choices, form: MessageForm) -> None:
        super().__init__(choices.request_id, choices.headers, choices)
        self._choices = choices
        self._form = form

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        (reader,) = self._choices.readers()
        (running,) = self._choices.running
        begin = named_event(self._form.begin(running.num_prompt_tokens))
        num_texts = 0
        async with aclosing(self._choices.deltas()) as deltas:
            async for _, delta in deltas:
                choice = reader.take(delta)
                events, begin = begin, b""
                if choice.text:
                    events += _text_events(choice.text, is_first=num_texts == 0)
                    num_texts += 1
                if choice.reason is not None:
                    events += _call_events(choice.calls) if choice.calls else _text_end(is_empty=num_texts == 0)
                    end = message_end(choice, running.log.stop_string)
                    events += named_event(MessageDelta(end, message_usage(self._choices.usage)))
                    events += named_event(MessageStop())
                yield events

    def error_event(self, error: IntaglioError) -> bytes:
        """The object that Anthropic's own clients raise for."""
        return named_event(anthropic_error_event(error, self.request_id))


def _text_events(text: str, *, is_first: bool) -> bytes:
    opening = named_event(BlockStart(0, TextBlock(""))) if is_first else b""
    return opening + named_event(BlockDelta(0, TextPiece(text)))


def _text_end(*, is_empty: bool) -> bytes:
    """An empty completion is an empty text, as in a response that is not a stream."""
    opening = named_event(BlockStart(0, TextBlock(""))) if is_empty else b""
    return opening + named_event(BlockStop(0))


def _call_events(calls: Sequence[ToolCall]) -> bytes:
    events = b""
    for index, call in enumerate(calls):
        arguments = msgspec.json.encode(call.arguments).decode()
        events += named_event(BlockStart(index, tool_use(call.name, {})))
        events += named_event(BlockDelta(index, InputPiece(arguments)))
        events += named_event(BlockStop(index))
    return events
