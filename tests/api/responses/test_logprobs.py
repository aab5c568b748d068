"""Logprobs of the tokens of a response, whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.messages.wire import events_of
from tests.api.openai.wire import body_of
from tests.api.responses.wire import create

INCLUDED = {"include": ["message.output_text.logprobs"]}


def logprobs_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = response["output"][0]["content"][0]["logprobs"]
    return found


@pytest.mark.parametrize(
    ("fields", "num_best"), [(INCLUDED, 0), ({**INCLUDED, "top_logprobs": 2}, 2), ({"top_logprobs": 3}, 3)]
)
def test_each_token_of_the_text_has_its_logprob(client: TestClient, fields: dict[str, Any], num_best: int) -> None:
    response = body_of(create(client, **fields))
    tokens = logprobs_of(response)
    assert "".join(bytes(token["bytes"]).decode() for token in tokens) == response["output"][0]["content"][0]["text"]
    assert [len(token["top_logprobs"]) for token in tokens] == [num_best] * len(tokens)
    assert response["top_logprobs"] == fields.get("top_logprobs", 0)


def test_a_response_without_them_has_none(client: TestClient) -> None:
    assert logprobs_of(body_of(create(client, include=[], top_logprobs=0))) == []


def test_a_stream_has_them_with_each_delta_and_all_of_them_at_the_end(client: TestClient) -> None:
    whole = logprobs_of(body_of(create(client, **INCLUDED, seed=1)))
    events = events_of(create(client, **INCLUDED, seed=1, stream=True))
    deltas = [token for one in events if one["type"] == "response.output_text.delta" for token in one["logprobs"]]
    (done,) = [one for one in events if one["type"] == "response.output_text.done"]
    assert [token["token"] for token in deltas] == [token["token"] for token in whole]
    assert done["logprobs"] == deltas
    assert logprobs_of(events[-1]["response"]) == deltas
