"""The real model under a grammar: its completions have the requested form.

The model is small and not trained to follow instructions, so the tests do not check that the content makes sense.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.e2e.conftest import ACCOUNT, MODEL, RUN, run_model

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 6},
        "size": {"enum": ["small", "big"]},
        "people": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["city", "size", "people"],
    "additionalProperties": False,
}
TOOL = {"name": "describe", "description": "Describe a city.", "parameters": SCHEMA}
FREE: dict[str, Any] = {"prompt": "The capital of France is", "raw": True, "temperature": 0, "max_tokens": 12}
CONSTRAINED: dict[str, Any] = {"prompt": "Paris: ", "raw": True, "temperature": 1, "max_tokens": 120}
CALL: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Paris"}], "tools": [TOOL, {"name": "other"}], "max_tokens": 120,
    "tool_choice": {"type": "function", "function": {"name": "describe"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def adapter(http: httpx.Client, adapter_folders: list[Path]) -> str:
    """The name of a finetune."""
    made = http.post(f"{ACCOUNT}/ai/finetunes", json={"model": MODEL, "name": "structured"})
    assert made.status_code == 200, made.text
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        files = {"file": (name, (adapter_folders[0] / name).read_bytes())}
        path = f"{ACCOUNT}/ai/finetunes/structured/finetune-assets"
        assert http.post(path, data={"file_name": name}, files=files).status_code == 200
    return "structured"


def check(value: object) -> None:
    jsonschema_rs.validate(SCHEMA, value)


def run_models(client: httpx.Client, *bodies: dict[str, Any]) -> list[dict[str, Any]]:
    """The results of simultaneous runs that must succeed; together they take little longer than one."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: run_model(client, **body), bodies))


def streamed(client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a stream that ends well."""
    with client.stream("POST", RUN, json={**body, "stream": True}) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def streamed_and_whole(client: httpx.Client, body: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The chunks of a streamed run and the result of the same run without stream, requested at the same time."""
    with ThreadPoolExecutor(2) as pool:
        chunks, whole = pool.submit(streamed, client, body), pool.submit(run_model, client, **body)
        return chunks.result(), whole.result()


def test_the_response_is_json_that_the_schema_allows(http: httpx.Client, adapter: str) -> None:
    by_format = {"response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}}
    ways = (by_format, {"guided_json": SCHEMA}, {"guided_json": SCHEMA, "lora": adapter})
    for result in run_models(http, *({**CONSTRAINED, "seed": seed, **way} for seed, way in enumerate(ways, start=1))):
        check(result["response"])
        assert result["finish_reason"] == "stop"


@pytest.mark.slow
def test_json_mode_without_a_schema_gives_an_object_or_5024(http: httpx.Client) -> None:
    body = {**CONSTRAINED, "max_tokens": 30, "seed": 1, "response_format": {"type": "json_object"}}
    response = http.post(RUN, json=body)
    if response.status_code == 200:
        assert isinstance(response.json()["result"]["response"], dict)
    else:
        assert response.json()["errors"][0]["code"] == 5024
        assert "max_tokens (30)" in response.json()["errors"][0]["message"]


@pytest.mark.slow
def test_streamed_json_is_the_same_json(http: httpx.Client) -> None:
    chunks, whole = streamed_and_whole(http, {**CONSTRAINED, "guided_json": SCHEMA, "seed": 5})
    assert len(chunks) > 3
    assert json.loads("".join(chunk["response"] for chunk in chunks)) == whole["response"]


def test_a_required_call_is_valid(http: httpx.Client, adapter: str) -> None:
    for result in run_models(http, *({**CALL, "temperature": 1, "seed": 1, **way} for way in ({}, {"lora": adapter}))):
        (call,) = result["tool_calls"]
        assert call["name"] == "describe"
        check(call["arguments"])
        assert (result["response"], result["finish_reason"]) == ("", "tool_calls")


def test_a_streamed_call_comes_in_one_chunk(http: httpx.Client) -> None:
    (called, last), whole = streamed_and_whole(http, {**CALL, "seed": 7})
    (call,) = called["tool_calls"]
    check(call["arguments"])
    assert last["finish_reason"] == "tool_calls"
    assert whole["tool_calls"] == [{name: call[name] for name in ("name", "arguments")}]


@pytest.mark.slow
def test_where_the_model_may_choose_it_gives_text_or_calls(http: httpx.Client) -> None:
    for seed in (1, 2):
        response = http.post(
            RUN, json={**CALL, "tool_choice": "auto", "max_tokens": 16, "temperature": 1, "seed": seed}
        )
        if response.status_code != 200:  # a call it is, but a long one
            assert "max_tokens (16) cut the tool call off" in response.json()["errors"][0]["message"]
            continue
        result = response.json()["result"]
        if "tool_calls" in result:
            assert {call["name"] for call in result["tool_calls"]} <= {"describe", "other"}
        else:
            assert result["response"]
            assert not result["response"].lstrip().startswith("{")


@pytest.mark.slow
def test_constrained_and_free_requests_in_one_batch_do_not_affect_each_other(http: httpx.Client, adapter: str) -> None:
    requests = [
        FREE,
        {**CONSTRAINED, "guided_json": SCHEMA, "seed": 11},
        {**FREE, "lora": adapter},
        {**CONSTRAINED, "guided_json": SCHEMA, "seed": 12, "lora": adapter},
        {**CALL, "temperature": 1, "seed": 13},
        {**FREE, "temperature": 1, "seed": 14},
    ]
    alone = [run_model(http, **body) for body in requests]
    for one, other in zip(alone, run_models(http, *requests), strict=True):
        assert {name: one.get(name) for name in ("response", "tool_calls")} == {
            name: other.get(name) for name in ("response", "tool_calls")
        }
    for result in (alone[1], alone[3]):
        check(result["response"])


@pytest.mark.slow
def test_a_call_and_its_result_can_be_sent_back_in_messages(http: httpx.Client) -> None:
    question = {"role": "user", "content": "Paris"}
    call = run_model(http, **CALL, seed=7)["tool_calls"]
    with_call = [question, {"role": "assistant", "content": None, "tool_calls": call}]
    result = {"role": "tool", "name": "describe", "content": "A big city."}
    counts = [
        run_model(http, messages=messages, max_tokens=1)["usage"]["prompt_tokens"]
        for messages in ([question], with_call, [*with_call, result])
    ]
    assert counts[0] + 10 < counts[1] < counts[2] - 5
