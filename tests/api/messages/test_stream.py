"""A streamed message: the sequence of events that Anthropic's clients add up."""

from __future__ import annotations

import json

from fastapi.testclient import TestClient

from tests.api.messages.wire import CALL, TOOL, ask, events_of, message_of, refusal_of
from tests.helpers.fakes import FakeLLM


def test_a_text_is_one_block_of_pieces_that_add_up(client: TestClient) -> None:
    events = events_of(ask(client, stream=True))
    kinds = [event["type"] for event in events]
    deltas = ["content_block_delta"] * 3
    assert kinds == [
        "message_start", "content_block_start", *deltas, "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    begin, opening, *pieces = events[:5]
    assert (begin["message"]["content"], begin["message"]["stop_reason"]) == ([], None)
    assert begin["message"]["usage"]["input_tokens"] == 3
    assert opening["content_block"] == {"type": "text", "text": ""}
    whole = message_of(ask(client))
    assert "".join(piece["delta"]["text"] for piece in pieces) == whole["content"][0]["text"]
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2]["usage"] == whole["usage"]


def test_a_stop_sequence_is_named_at_the_end(client: TestClient) -> None:
    *_, end, _ = events_of(ask(client, stream=True, stop_sequences=["one"]))
    assert end["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "one"}


def test_an_empty_completion_is_an_empty_text(client: TestClient) -> None:
    events = events_of(ask(client, "one two", stream=True, stop_sequences=["two"]))
    assert [event["type"] for event in events] == [
        "message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip


def test_a_call_is_a_block_whose_arguments_come_whole(client: TestClient) -> None:
    events = events_of(ask(client, CALL, stream=True, tools=[TOOL]))
    opening, piece, closing, end = events[1:5]
    assert opening["content_block"].items() > {"type": "tool_use", "name": "get_weather", "input": {}}.items()
    assert piece["delta"]["type"] == "input_json_delta"
    assert json.loads(piece["delta"]["partial_json"]) == {"city": "Paris"}
    assert (closing["type"], end["delta"]["stop_reason"]) == ("content_block_stop", "tool_use")


def test_several_calls_are_several_blocks(client: TestClient) -> None:
    calls = '<answer>[{"name": "get_weather", "parameters": {"city": "A"}}, ' \
            '{"name": "get_weather", "parameters": {"city": "B"}}]</answer>'  # fmt: skip
    events = events_of(ask(client, calls, stream=True, tools=[TOOL]))
    assert [event["index"] for event in events if event["type"] == "content_block_start"] == [0, 1]
    arguments = [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"]
    assert [json.loads(text)["city"] for text in arguments] == ["A", "B"]


def test_a_failure_before_the_first_piece_is_a_response(client: TestClient) -> None:
    assert refusal_of(ask(client, "<fail>", stream=True))[:3] == (500, 3043, "api_error")


def test_a_later_failure_is_an_event_error_and_the_last(client: TestClient, llm: FakeLLM) -> None:
    *_, last = events_of(ask(client, "<fail> one", stream=True))
    assert last["type"] == "error"
    assert (last["error"]["type"], "the engine process ended" in last["error"]["message"]) == ("api_error", True)
    assert llm.num_open == 0
