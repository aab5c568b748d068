"""One choice of an OpenAI-compatible response: from the engine's text deltas to its text or its calls of tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from intaglio.api.inference.running_request import TOOL_CALLS
from intaglio.completion import TextDelta, TokenLogprob
from intaglio.text.tool_calls import ToolCallBuffer, parse_tool_calls
from intaglio.text.tools import ToolCall, ToolUse


@dataclass(frozen=True, slots=True)
class ChoiceDelta:
    """A piece of a choice, or the whole of it.

    text    "" where it calls tools
    reason  why it ended; None while it goes on
    tokens  with their logprobs, if those were asked for
    calls   of tools; only chat has them
    """

    text: str
    reason: str | None = None
    tokens: Sequence[TokenLogprob] = ()
    calls: Sequence[ToolCall] = ()


class ChoiceReader:
    """Reads a choice's deltas one by one. What is, or may become, a call of a tool is held back until it is complete.

    prefix  stands in front of the completion
    tools   that may be called; None where there are none
    """

    def __init__(self, prefix: str, tools: ToolUse | None) -> None:
        self._prefix = prefix
        self._tools = tools
        self._buffer = ToolCallBuffer()

    def take(self, delta: TextDelta) -> ChoiceDelta:
        """What can be sent after this delta; all of its fields may be empty.

        A call that was cut short is given as the text that it is, with the reason of the cut.
        """
        text = self._prefix + (delta.text if self._tools is None else self._buffer.push(delta.text))
        self._prefix = ""
        if delta.finish_reason is None:
            return ChoiceDelta(text, tokens=delta.logprobs)
        if self._tools is not None and self._buffer.held:
            calls = parse_tool_calls(self._buffer.held, self._tools)
            if calls:
                return ChoiceDelta("", TOOL_CALLS, delta.logprobs, calls)
            text += self._buffer.held
        return ChoiceDelta(text, delta.finish_reason.value, delta.logprobs)


def merged(pieces: Sequence[ChoiceDelta]) -> ChoiceDelta:
    """All pieces of a choice as one."""
    return ChoiceDelta(
        "".join(piece.text for piece in pieces),
        pieces[-1].reason,
        [token for piece in pieces for token in piece.tokens],
        pieces[-1].calls,
    )
