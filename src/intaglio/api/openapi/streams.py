"""What the events of a streamed answer hold. The schema of a stream is that of each of its events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from intaglio.api.openapi.shapes import COUNT, TEXT, listed, one_of, record, ref

END = "[DONE]"

REASON = one_of(("stop", "length", "tool_calls"))
_LAST_REASON = one_of((*REASON["enum"], "error"))
_NATIVE_CALL = record({"index": COUNT, "name": TEXT, "arguments": {"type": "object"}})

STREAM_SCHEMAS: dict[str, Any] = {
    "RunEvent": record(
        {"response": {**TEXT, "description": "the next piece of the answer"}},
        {
            "p": {**TEXT, "description": "padding, so that packet sizes do not tell the words"},
            "tool_calls": listed(_NATIVE_CALL),
            "usage": ref("Usage"),
            "finish_reason": {**_LAST_REASON, "description": "in the last event only"},
            "errors": {**listed(ref("ErrorItem")), "description": "what cut the answer short; nothing follows"},
        },
    ),
}


def event_stream(says: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a stream of JSON events; `[DONE]` follows the last."""
    data = {
        "anyOf": [
            {"const": END},
            {"type": "string", "contentMediaType": "application/json", "contentSchema": dict(content)},
        ]
    }
    return {
        "type": "object",
        "description": f"Server-sent events without names. {says} `data: {END}` is the end. What fails after the first "
        "event is told in the last one, and there is no such end.",
        "properties": {"data": data},
        "required": ["data"],
    }
