"""Asks a running server for text, as a stream, by its OpenAI-compatible routes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from intaglio.client.connection import Connection, shown_message
from intaglio.errors import ServerRefusedError, ServerUnreachableError


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a completion. The last one has no text, but the finish reason and the numbers of tokens."""

    text: str
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


def stream_completion(connection: Connection, body: Mapping[str, Any]) -> Iterator[Piece]:
    """The pieces of one completion. A loop that is left early ends it on the server too.

    body  of /v1/chat/completions, or of /v1/completions if it has a `prompt`

    Raises ServerRefusedError, also for an error in the middle, or ServerUnreachableError.
    """
    path = "v1/completions" if "prompt" in body else "v1/chat/completions"
    whole = {**body, "stream": True, "stream_options": {"include_usage": True}}
    reason: str | None = None
    usage: dict[str, int] = {}
    with connection.stream_lines(path, whole) as lines:
        for event in _events(lines):
            if "error" in event:
                raise ServerRefusedError(shown_message(event["error"]["message"]), 200, int(event["error"]["code"]))
            usage = event.get("usage") or usage
            for choice in event.get("choices", []):
                text = choice["delta"].get("content") if "delta" in choice else choice.get("text")
                reason = choice.get("finish_reason") or reason
                if text:
                    yield Piece(text)
    if reason is None:
        raise ServerUnreachableError(f"{connection.url} ended the stream before the completion was complete")
    yield Piece("", reason, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The JSON of server-sent events, each in one `data` line, up to `[DONE]`."""
    for line in lines:
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            if data == "[DONE]":
                return
            yield json.loads(data)
