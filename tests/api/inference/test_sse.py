from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from intaglio.api.inference.sse import MAX_PADDING, MIN_PADDING, PADDING_ALPHABET, text_event
from tests.api.conftest import RUN
from tests.helpers.fakes import FakeLLM


def events_of(response: Any) -> list[str]:
    """The payloads of a stream, which must be nothing but `data:` lines, each followed by an empty one."""
    text = response.text
    assert text.endswith("\n\n")
    events = text[:-2].split("\n\n")
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [event.removeprefix("data: ") for event in events]


def stream(client: TestClient, prompt: str, **fields: Any) -> Response:
    return client.post(RUN, json={"prompt": prompt, "raw": True, "stream": True, **fields})  # type: ignore[return-value]


def test_a_stream_has_padded_text_then_usage_then_done(client: TestClient) -> None:
    response = stream(client, "one two three")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cf-ai-req-id"]
    assert "content-length" not in response.headers
    *chunks, done = events_of(response)
    assert done == "[DONE]"
    *texts, last = [json.loads(chunk) for chunk in chunks]
    assert [chunk.keys() for chunk in texts] == [{"response", "p"}] * 3
    assert "".join(chunk["response"] for chunk in texts) == "three two one"
    assert last == {
        "response": "",
        "usage": {
            "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
        "finish_reason": "stop",
    }  # fmt: skip
    assert "null" not in response.text


def test_padding_is_a_prefix_of_the_alphabet_of_many_lengths() -> None:
    paddings = [json.loads(text_event("x").removeprefix(b"data: "))["p"] for _ in range(2000)]
    assert {len(padding) for padding in paddings} == set(range(MIN_PADDING, MAX_PADDING + 1))
    assert all((PADDING_ALPHABET * 2).startswith(padding) for padding in paddings)


def test_an_empty_completion_is_usage_and_done(client: TestClient) -> None:
    *chunks, done = events_of(stream(client, "one", max_tokens=0))
    (last,) = [json.loads(chunk) for chunk in chunks]
    assert (last["response"], last["finish_reason"], done) == ("", "length", "[DONE]")


def test_text_with_newlines_stays_on_one_line(client: TestClient) -> None:
    response = client.post(RUN, json={"messages": [{"role": "user", "content": "a\u2028b"}], "stream": "true"})
    assert json.loads(events_of(response)[0])["response"] == "b"


def test_an_error_after_the_first_byte_is_an_event_and_no_done(client: TestClient) -> None:
    *texts, last = events_of(stream(client, "<fail> two one"))
    assert [json.loads(chunk)["response"] for chunk in texts] == ["one", " two"]
    assert json.loads(last) == {
        "response": "",
        "errors": [{"code": 3043, "message": "AiError: the engine process ended"}],
        "finish_reason": "error",
    }


def test_an_error_before_the_first_byte_is_a_status(client: TestClient) -> None:
    response = stream(client, "<fail>")
    assert response.status_code == 500
    assert response.json()["errors"][0]["code"] == 3043
    assert response.headers["cf-ai-req-id"]


@pytest.mark.parametrize("prompt", ["<crash> one", "<crash>"])
def test_a_crash_while_streaming_ends_the_stream_and_is_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture, prompt: str
) -> None:
    response = stream(client, prompt)
    assert '"code":3043' in response.text
    assert "[DONE]" not in response.text
    assert "unexpected fault" not in response.text
    assert "ZeroDivisionError: an unexpected fault" in caplog.text


def test_a_refused_request_is_refused_before_the_stream_begins(client: TestClient, llm: FakeLLM) -> None:
    response = stream(client, "x", lora="nobody")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/json"
    assert llm.submitted == []


def test_a_stream_is_logged_like_any_request(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="intaglio"):
        stream(client, "one two")
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("run ")]
    assert "completion=2" in line
    assert "reason=stop" in line
