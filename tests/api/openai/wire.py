"""Requests to the OpenAI-compatible routes, and readers of their responses."""

from __future__ import annotations

import json
from typing import Any

from fastapi.testclient import TestClient

from tests.api.conftest import ACCOUNT, MODEL

V1 = f"{ACCOUNT}/ai/v1"
CHAT = f"{V1}/chat/completions"
COMPLETIONS = f"{V1}/completions"
MODELS = f"{V1}/models"


def chat(client: TestClient, content: str = "one two", **fields: Any) -> Any:
    """The response to one user message. The fake answers `two one user:` to the default."""
    return client.post(CHAT, json={"model": MODEL, "messages": [{"role": "user", "content": content}], **fields})


def complete(client: TestClient, prompt: Any = "one two", **fields: Any) -> Any:
    """The response to a prompt. The fake answers `two one` to the default."""
    return client.post(COMPLETIONS, json={"model": MODEL, "prompt": prompt, **fields})


def body_of(response: Any) -> dict[str, Any]:
    """The body of a success, which is bare."""
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert "success" not in body
    return body


def refusal_of(response: Any) -> tuple[int, int, str]:
    """Status, code and message of a failure: the envelope, and beside it the `error` that OpenAI's SDKs read."""
    body = response.json()
    assert body.keys() == {"result", "success", "errors", "messages", "error"}
    assert body["error"].items() > body["errors"][0].items()
    assert body["error"]["errors"] == body["errors"]  # what an SDK keeps is that object alone
    assert (body["success"], body["result"]) == (False, {})
    (error,) = body["errors"]
    return response.status_code, error["code"], error["message"]


def chunks_of(response: Any) -> list[dict[str, Any]]:
    """The chunks of a stream that ended well: nothing but `data:` lines, and one [DONE] at the end."""
    *chunks, done = events_of(response)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def events_of(response: Any) -> list[str]:
    """The payloads of a stream."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("\n\n")
    events = response.text[:-2].split("\n\n")
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [event.removeprefix("data: ") for event in events]
