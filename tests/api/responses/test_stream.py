"""A streamed response: the sequence of events that OpenAI's clients add up."""

from __future__ import annotations

import json
from typing import Any

from fastapi.testclient import TestClient

from tests.api.messages.wire import events_of
from tests.api.openai.wire import body_of, refusal_of
from tests.api.responses.wire import CALL, RESPONSES, TOOL, create, read, text_of
from tests.helpers.fakes import FakeLLM


def stream(client: TestClient, *sent: Any, **fields: Any) -> list[dict[str, Any]]:
    events = events_of(create(client, *sent, stream=True, **fields))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def kinds_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_text_is_one_item_of_pieces_that_add_up(client: TestClient) -> None:
    events = stream(client)
    pieces = ["output_text.delta"] * 3
    assert kinds_of(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", *pieces,
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []
    response = events[-1]["response"]
    assert text_of(response) == "two one user:"
    assert "".join(event["delta"] for event in events[4:7]) == text_of(response)
    assert events[7]["text"] == events[8]["part"]["text"] == text_of(response)
    assert events[9]["item"] == response["output"][0]
    assert {event["item_id"] for event in events if "item_id" in event} == {response["output"][0]["id"]}
    assert {event["response"]["id"] for event in events if "response" in event} == {response["id"]}


def test_the_last_event_is_the_response_that_is_not_streamed(client: TestClient) -> None:
    varying = {"id", "created_at", "completed_at", "output"}
    streamed, whole = stream(client)[-1]["response"], body_of(create(client))
    assert {name: value for name, value in streamed.items() if name not in varying} == {
        name: value for name, value in whole.items() if name not in varying
    }


def test_a_streamed_response_is_stored_and_continued(client: TestClient, llm: FakeLLM) -> None:
    response = stream(client)[-1]["response"]
    assert read(client, response["id"]) == response
    stream(client, "three", previous_response_id=response["id"])
    assert "assistant: two one user:" in llm.submitted[-1][0]
    unstored = stream(client, store=False)[-1]["response"]
    assert refusal_of(client.get(f"{RESPONSES}/{unstored['id']}"))[:2] == (404, 5006)


def test_a_call_is_an_item_whose_arguments_come_whole(client: TestClient) -> None:
    events = stream(client, CALL, tools=[TOOL])
    assert kinds_of(events)[2:] == [
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    added, piece, done, item = events[2:6]
    assert (added["item"]["arguments"], added["item"]["status"]) == ("", "in_progress")
    assert json.loads(piece["delta"]) == json.loads(done["arguments"]) == {"city": "Paris"}
    assert item["item"] == events[-1]["response"]["output"][0]
    assert item["item"]["call_id"] == added["item"]["call_id"]


def test_a_cut_response_ends_as_incomplete(client: TestClient) -> None:
    events = stream(client, max_output_tokens=1)
    assert kinds_of(events)[-1] == "incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_failure_before_the_first_piece_is_a_response(client: TestClient) -> None:
    assert refusal_of(create(client, "<fail>", stream=True))[:2] == (500, 3043)


def test_a_later_failure_is_the_last_event_and_nothing_is_stored(client: TestClient, llm: FakeLLM) -> None:
    *_, last = stream(client, "<fail> one")
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert "the engine process ended" in last["response"]["error"]["message"]
    assert client.get(f"{RESPONSES}/{last['response']['id']}").status_code == 404
    assert llm.num_open == 0
