from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from intaglio.api.app import create_app
from intaglio.api.state import ServerState
from tests.api.conftest import MODEL
from tests.api.openai.test_routes import CALL, TOOLS
from tests.api.openai.wire import CHAT, body_of, chat, chunks_of, complete, events_of, refusal_of
from tests.helpers.fakes import FakeLLM
from tests.helpers.live_server import live_server

DEADLINE_S = 20.0


def test_a_chat_stream_has_the_role_first_and_usage_with_the_finish_reason(client: TestClient) -> None:
    response = chat(client, stream=True)
    chunks = chunks_of(response)
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks} == {
        (f"chatcmpl-{response.headers['cf-ai-req-id']}", "chat.completion.chunk", MODEL)
    }
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "delta": {"role": "assistant", "content": "two"}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": " one"}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": " user:"}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    ]
    assert ["usage" in chunk for chunk in chunks] == [False, False, False, True]
    assert chunks[-1]["usage"]["total_tokens"] == 6
    assert response.headers["intaglio-version"]


def test_usage_is_never_null_and_sent_once(client: TestClient) -> None:
    response = chat(client, stream=True, stream_options={"include_usage": True})
    chunks = chunks_of(response)
    assert '"usage":null' not in response.text
    assert ["usage" in chunk for chunk in chunks] == [False, False, False, False, True]
    assert chunks[-1]["choices"] == []
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


def test_a_completion_stream_has_text(client: TestClient) -> None:
    chunks = chunks_of(complete(client, stream=True, echo=True))
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["one twotwo", " one", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


def test_an_empty_answer_still_has_a_role_a_reason_and_usage(client: TestClient) -> None:
    (chunk,) = chunks_of(chat(client, stream=True, max_tokens=0))
    assert chunk["choices"] == [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "length"}]
    assert chunk["usage"]["completion_tokens"] == 0


def test_choices_of_one_stream_put_together_equal_the_whole_answer(client: TestClient) -> None:
    fields: dict[str, Any] = {"n": 2, "logprobs": 1}
    prompts = ["a b c", "d"]
    whole = body_of(complete(client, prompts, **fields))
    chunks = chunks_of(complete(client, prompts, stream=True, **fields))
    texts: defaultdict[int, str] = defaultdict(str)
    tokens: defaultdict[int, list[str]] = defaultdict(list)
    offsets: defaultdict[int, list[int]] = defaultdict(list)
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
        if choice["logprobs"]:
            tokens[choice["index"]] += choice["logprobs"]["tokens"]
            offsets[choice["index"]] += choice["logprobs"]["text_offset"]
    for choice in whole["choices"]:
        assert texts[choice["index"]] == choice["text"]
        assert tokens[choice["index"]] == choice["logprobs"]["tokens"]
        assert offsets[choice["index"]] == choice["logprobs"]["text_offset"]
    ends = [chunk for chunk in chunks if chunk["choices"][0]["finish_reason"]]
    assert len(ends) == 4
    assert ["usage" in end for end in ends] == [False, False, False, True]
    assert chunks[-1]["usage"] == whole["usage"]


def test_chat_chunks_carry_logprobs(client: TestClient) -> None:
    chunks = chunks_of(chat(client, stream=True, logprobs=True, top_logprobs=1))
    found = [entry["token"] for chunk in chunks[:-1] for entry in chunk["choices"][0]["logprobs"]["content"]]
    assert found == ["two", " one", " user:"]


def test_a_tool_call_comes_whole_in_one_delta(client: TestClient) -> None:
    first, last = chunks_of(chat(client, CALL, stream=True, tools=TOOLS))
    (call,) = first["choices"][0]["delta"]["tool_calls"]
    assert call["index"] == 0
    assert call["id"].startswith("call_")
    assert call["function"] == {"name": "get_weather", "arguments": '{"city":"Paris"}'}
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]


def test_text_beside_tools_streams_as_it_comes(client: TestClient) -> None:
    chunks = chunks_of(chat(client, "<answer>It is [ sunny</answer>", stream=True, tools=TOOLS))
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["It", " is", " [", " sunny", None]
    assert '"tool_calls"' not in json.dumps(chunks)


def test_an_error_after_the_first_byte_is_an_error_object_and_no_done(client: TestClient, llm: FakeLLM) -> None:
    *chunks, last = events_of(complete(client, "<fail> two one", stream=True, n=2))
    assert [json.loads(chunk)["choices"][0]["text"] for chunk in chunks[:2]] == ["one", " two"]
    assert json.loads(last) == {
        "error": {"code": 3043, "message": "AiError: the engine process ended", "type": "server_error"}
    }
    assert llm.num_open == 0


def test_an_error_before_the_first_byte_is_a_status(client: TestClient) -> None:
    response = complete(client, "<fail>", stream=True)
    assert refusal_of(response)[:2] == (500, 3043)
    assert response.headers["cf-ai-req-id"]


@pytest.mark.parametrize("prompt", ["<crash> one", "<crash>"])
def test_a_crash_while_streaming_ends_the_stream_and_is_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture, prompt: str
) -> None:
    response = complete(client, prompt, stream=True, n=2)
    assert '"code":3043' in response.text
    assert "[DONE]" not in response.text
    assert "unexpected fault" not in response.text
    assert "ZeroDivisionError: an unexpected fault" in caplog.text


def test_a_client_that_goes_away_frees_all_its_sequences(state: ServerState, llm: FakeLLM) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "<stall> two one"}], "n": 3}
    with live_server(create_app(state)) as address:
        url = address + CHAT
        with httpx.stream("POST", url, json={**body, "stream": True}, timeout=DEADLINE_S) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
            assert llm.stalled.wait(DEADLINE_S)
            assert llm.num_open == 3
        assert llm.aborted.wait(DEADLINE_S)
        llm.aborted.clear()
        with httpx.Client(timeout=httpx.Timeout(DEADLINE_S, read=0.2)) as client, pytest.raises(httpx.ReadTimeout):
            client.post(url, json=body)
        assert llm.aborted.wait(DEADLINE_S)
    assert llm.num_open == 0
