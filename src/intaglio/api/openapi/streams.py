"""What the events of a streamed answer hold. The schema of a stream is that of each of its events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

END = "[DONE]"


def named_event_stream(says: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a stream of JSON events whose names are the `type` of their content."""
    return {
        "type": "object",
        "description": f"Server-sent events, each with the name that its `type` has. {says}",
        "properties": {
            "event": {"type": "string"},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": dict(content)},
        },
        "required": ["event", "data"],
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
