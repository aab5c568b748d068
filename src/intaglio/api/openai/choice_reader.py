"""One choice of an OpenAI-compatible response: from the engine's text deltas to its text or its calls of tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from intaglio.api.inference.running_request import TOOL_CALLS
from intaglio.api.openai.prompt_scores import Prompt, ScoredPrompt
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
    prompt  the prompt's scores, in the first piece, if they were asked for
    """

    text: str
    reason: str | None = None
    tokens: Sequence[TokenLogprob] = ()
    calls: Sequence[ToolCall] = ()
    prompt: ScoredPrompt | None = None


class ChoiceReader:
    """Reads a choice's deltas one by one. What is, or may become, a call of a tool is held back until it is complete.

    prompt  stands in front of the completion, if it is to be echoed
    tools   that may be called; None where there are none
    """

    def __init__(self, prompt: Prompt, tools: ToolUse | None) -> None:
        self._prompt = prompt
        self._prefix = prompt.echoed or ""
        self._tools = tools
        self._buffer = ToolCallBuffer()

    def take(self, delta: TextDelta) -> ChoiceDelta:
        """What can be sent after this delta; all of its fields may be empty.

        A call that was cut short is given as the text that it is, with the reason of the cut.
        """
        taken = self._take(delta)
        if delta.prompt_logprobs is None:
            return taken
        return replace(taken, prompt=ScoredPrompt(self._prompt, delta.prompt_logprobs))

    def _take(self, delta: TextDelta) -> ChoiceDelta:
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
        pieces[0].prompt,
    )
