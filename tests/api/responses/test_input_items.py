"""The input of a stored response as items, in pages."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.openai.wire import body_of, refusal_of
from tests.api.responses.wire import CALL, RESPONSES, TOOL, create

USER = {"role": "user", "content": "one two"}


def items_of(client: TestClient, response_id: str, **query: Any) -> dict[str, Any]:
    return body_of(client.get(f"{RESPONSES}/{response_id}/input_items", params=query))


def texts_of(page: dict[str, Any]) -> list[str]:
    return ["".join(part["text"] for part in item["content"]) for item in page["data"]]


def test_the_input_is_listed_from_its_end_and_from_its_beginning(client: TestClient) -> None:
    sent = [{"role": "developer", "content": "be brief"}, USER]
    response_id = body_of(create(client, sent))["id"]
    page = items_of(client, response_id)
    assert (page["object"], page["has_more"], texts_of(page)) == ("list", False, ["one two", "be brief"])
    assert [item["role"] for item in page["data"]] == ["user", "system"]
    assert page["data"][0]["content"] == [{"type": "input_text", "text": "one two"}]
    assert (page["first_id"], page["last_id"]) == tuple(item["id"] for item in page["data"])
    assert items_of(client, response_id, order="asc")["data"] == page["data"][::-1]


def test_what_a_response_continued_stands_before_its_input(client: TestClient) -> None:
    first = body_of(create(client, "a b"))
    second = body_of(create(client, "c", previous_response_id=first["id"]))
    page = items_of(client, second["id"], order="asc")
    assert texts_of(page) == ["a b", first["output"][0]["content"][0]["text"], "c"]
    assert page["data"][1]["content"][0]["type"] == "output_text"


def test_calls_and_their_results_are_items(client: TestClient) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city": "Paris"}'}
    result = {"type": "function_call_output", "call_id": "c1", "output": "mild"}
    response_id = body_of(create(client, [USER, call, result], tools=[TOOL]))["id"]
    items = items_of(client, response_id, order="asc")["data"]
    assert [item["type"] for item in items] == ["message", "function_call", "function_call_output"]
    assert items[1].items() >= call.items()
    assert items[2].items() >= result.items()


def test_a_call_that_the_model_made_is_an_item_of_what_follows(client: TestClient) -> None:
    first = body_of(create(client, CALL, tools=[TOOL]))
    call = first["output"][0]
    answer = {"type": "function_call_output", "call_id": call["call_id"], "output": "mild"}
    second = body_of(create(client, [answer], tools=[TOOL], previous_response_id=first["id"]))
    listed = items_of(client, second["id"], order="asc")["data"]
    assert [item["type"] for item in listed] == ["message", "function_call", "function_call_output"]
    assert listed[1]["call_id"] == call["call_id"]


def test_pages_follow_each_other(client: TestClient) -> None:
    response_id = body_of(create(client, [{"role": "user", "content": f"w{i}"} for i in range(5)]))["id"]
    first = items_of(client, response_id, limit=2)
    second = items_of(client, response_id, limit=2, after=first["last_id"])
    third = items_of(client, response_id, limit=2, after=second["last_id"])
    assert [texts_of(page) for page in (first, second, third)] == [["w4", "w3"], ["w2", "w1"], ["w0"]]
    assert [page["has_more"] for page in (first, second, third)] == [True, True, False]
    past = items_of(client, response_id, after=third["last_id"])
    assert (past["data"], past["first_id"], past["has_more"]) == ([], None, False)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"order": "up"}, "query parameter 'order' is \"up\", not asc or desc"),
        ({"limit": 101}, "query parameter 'limit' is \"101\", not an integer from 1 to 100"),
        ({"after": "msg_x"}, "query parameter 'after' is \"msg_x\", no item of this response's input"),
        ({"before": "msg_x"}, 'query parameter "before" is not known here; known: order, after, limit'),
    ],
)
def test_what_cannot_be_listed_is_refused(client: TestClient, query: dict[str, Any], says: str) -> None:
    response_id = body_of(create(client))["id"]
    status, code, message = refusal_of(client.get(f"{RESPONSES}/{response_id}/input_items", params=query))
    assert (status, code) == (400, 5006)
    assert says in message


def test_a_response_that_is_not_stored_has_no_items(client: TestClient) -> None:
    assert refusal_of(client.get(f"{RESPONSES}/resp_none/input_items"))[:2] == (404, 5006)
