"""OpenAI's client on the Responses routes, and Anthropic's Messages, against the real server and the real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import ANSWER_DEADLINE_S, MODEL, run_model
from tests.helpers.servers import LiveServer

MESSAGES = [{"role": "user", "content": "Say hello."}]
GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_output_tokens": 8}
LONG = "Here are some words to remember: apple, river, stone, cloud, lamp, paper, chair, window. Say one of them."
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Tells the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "London"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(live_server: LiveServer) -> Iterator[openai.OpenAI]:
    """At the root, which is the account `local`."""
    address = f"{live_server.url}/v1"
    with openai.OpenAI(api_key="any", base_url=address, max_retries=0, timeout=ANSWER_DEADLINE_S) as client:
        yield client


def test_a_response_is_that_of_the_native_route_whole_and_streamed(client: openai.OpenAI, http: httpx.Client) -> None:
    native = run_model(http, messages=MESSAGES, temperature=0, max_tokens=8)
    made = client.responses.create(input="Say hello.", **GREEDY)
    assert made.output_text == native["response"]
    with client.responses.stream(input="Say hello.", **GREEDY) as events:
        found: list[Any] = list(events)
    assert sum(event.type == "response.output_text.delta" for event in found) > 1
    assert found[-1].response.output_text == native["response"]


def test_a_continued_response_reads_the_conversation_from_the_prefix_cache(client: openai.OpenAI) -> None:
    first = client.responses.create(input=LONG, **GREEDY)
    second = client.responses.create(input="Another one.", previous_response_id=first.id, **GREEDY)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens // 2
    assert client.responses.retrieve(first.id).output_text == first.output_text
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match="not found"):
        client.responses.retrieve(first.id)


def test_a_tool_is_called_and_its_result_continues_the_response(client: openai.OpenAI) -> None:
    asked = {**GREEDY, "max_output_tokens": 60, "tools": [WEATHER]}
    first = client.responses.create(input="The weather in Paris?", tool_choice="required", **asked)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [json.loads(call.arguments)["city"] in ("Paris", "London") for call in calls] == [True] * len(calls)
    results: Any = [{"type": "function_call_output", "call_id": one.call_id, "output": "mild"} for one in calls]
    second = client.responses.create(input=results, previous_response_id=first.id, tool_choice="none", **asked)
    assert second.output_text


def test_a_message_is_that_of_the_native_route_and_names_its_stop_sequence(
    live_server: LiveServer, http: httpx.Client
) -> None:
    native = run_model(http, messages=MESSAGES, temperature=0, max_tokens=8)
    body = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 8}
    made = httpx.post(f"{live_server.url}/v1/messages", json=body, timeout=ANSWER_DEADLINE_S).json()
    assert made["content"] == [{"type": "text", "text": native["response"]}]
    stop = native["response"][1:3]
    body["stop_sequences"] = [stop]
    cut = httpx.post(f"{live_server.url}/v1/messages", json=body, timeout=ANSWER_DEADLINE_S).json()
    assert (cut["stop_reason"], cut["stop_sequence"]) == ("stop_sequence", stop)
    assert cut["content"][0]["text"] == native["response"].partition(stop)[0]
