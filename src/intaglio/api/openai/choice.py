"""One choice of an OpenAI-compatible answer: from the engine's text deltas to what it says, in text or in calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from intaglio.api.inference.run import TOOL_CALLS
from intaglio.completion import TextDelta, TokenLogprob
from intaglio.text.tool_calls import CallHold, parse_tool_calls
from intaglio.text.tools import ToolCall, ToolUse


@dataclass(frozen=True, slots=True)
class Said:
    """What a choice says, or a piece of it.

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
    """Takes a choice's deltas one by one. What is, or may become, a call of a tool is held back until it is whole.

    prefix  stands in front of the answer
    tools   that may be called; None where there are none
    """

    def __init__(self, prefix: str, tools: ToolUse | None) -> None:
        self._prefix = prefix
        self._tools = tools
        self._hold = CallHold()

    def take(self, delta: TextDelta) -> Said:
        """What can be said after this delta; all of its fields may be empty.

        A call that was cut short is given as the text that it is, with the reason of the cut.
        """
        text = self._prefix + (delta.text if self._tools is None else self._hold.push(delta.text))
        self._prefix = ""
        if delta.finish_reason is None:
            return Said(text, tokens=delta.logprobs)
        if self._tools is not None and self._hold.held:
            calls = parse_tool_calls(self._hold.held, self._tools)
            if calls:
                return Said("", TOOL_CALLS, delta.logprobs, calls)
            text += self._hold.held
        return Said(text, delta.finish_reason.value, delta.logprobs)


def joined(pieces: Sequence[Said]) -> Said:
    """All pieces of a choice as one."""
    return Said(
        "".join(piece.text for piece in pieces),
        pieces[-1].reason,
        [token for piece in pieces for token in piece.tokens],
        pieces[-1].calls,
    )
