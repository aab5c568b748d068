"""Requests to the Messages routes, and readers of their responses."""

from __future__ import annotations

import json
from typing import Any

from fastapi.testclient import TestClient

from tests.api.conftest import ACCOUNT, MODEL

MESSAGES = f"{ACCOUNT}/ai/v1/messages"
TOOL = {
    "name": "get_weather",
    "description": "Weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = '<answer>{"name": "get_weather", "parameters": {"city": "Paris"}}</answer>'


def ask(client: TestClient, content: Any = "one two", **fields: Any) -> Any:
    """The response to one user message. The fake answers `two one user:` to the default."""
    messages = fields.pop("messages", [{"role": "user", "content": content}])
    return client.post(MESSAGES, json={"model": MODEL, "max_tokens": 50, "messages": messages, **fields})


def message_of(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert (body["type"], body["role"], body["id"][:4]) == ("message", "assistant", "msg_")
    return body


def refusal_of(response: Any) -> tuple[int, int, str, str]:
    """Status, code, Anthropic's type and message of a failure: the envelope, and beside it what its clients read."""
    body = response.json()
    assert body.keys() == {"result", "success", "errors", "messages", "type", "error", "request_id"}
    assert (body["success"], body["result"], body["type"]) == (False, {}, "error")
    (error,) = body["errors"]
    assert body["error"]["message"] == error["message"]
    return response.status_code, error["code"], body["error"]["type"], error["message"]


def events_of(response: Any) -> list[dict[str, Any]]:
    """The events of a stream; each has the name that its `type` has."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    events = []
    for text in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = text.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events
