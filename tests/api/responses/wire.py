"""Requests to the Responses routes, and readers of what they send."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from tests.api.conftest import ACCOUNT, MODEL
from tests.api.openai.wire import body_of

RESPONSES = f"{ACCOUNT}/ai/v1/responses"
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = '<answer>{"name": "get_weather", "parameters": {"city": "Paris"}}</answer>'


def create(client: TestClient, sent: Any = "one two", **fields: Any) -> Any:
    """The response to an input. The fake answers `two one user:` to the default."""
    return client.post(RESPONSES, json={"model": MODEL, "input": sent, **fields})


def read(client: TestClient, response_id: str) -> dict[str, Any]:
    return body_of(client.get(f"{RESPONSES}/{response_id}"))


def text_of(response: dict[str, Any]) -> str:
    """The text of a response that is one message."""
    (item,) = response["output"]
    assert (item["type"], item["role"]) == ("message", "assistant")
    (part,) = item["content"]
    assert part.items() >= {"type": "output_text", "annotations": []}.items()
    text: str = part["text"]
    return text
