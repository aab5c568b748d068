"""A message that is not streamed: its blocks, why it ended, its usage, and its errors."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from intaglio.settings import Settings
from tests.api.conftest import MODEL
from tests.api.messages.wire import CALL, MESSAGES, TOOL, ask, message_of, refusal_of
from tests.helpers.fakes import FakeLLM


def test_a_message_is_bare_and_has_text_reason_and_usage(client: TestClient) -> None:
    response = ask(client)
    message = message_of(response)
    assert message["content"] == [{"type": "text", "text": "two one user:"}]
    assert (message["model"], message["stop_reason"], message["stop_sequence"]) == (MODEL, "end_turn", None)
    assert message["usage"] == {
        "input_tokens": 2, "output_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 1,
    }  # fmt: skip
    assert message["id"] == f"msg_{response.headers['cf-ai-req-id']}"


def test_max_tokens_cuts_a_message(client: TestClient) -> None:
    message = message_of(ask(client, max_tokens=1))
    assert (message["content"][0]["text"], message["stop_reason"]) == ("two", "max_tokens")


def test_the_stop_sequence_that_was_found_is_named(client: TestClient, llm: FakeLLM) -> None:
    message = message_of(ask(client, stop_sequences=["zero", "one"]))
    assert message["content"][0]["text"] == "two"
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "one")
    assert llm.submitted[-1][3] == ("zero", "one")


def test_a_call_of_a_tool_is_a_block(client: TestClient) -> None:
    message = message_of(ask(client, CALL, tools=[TOOL], tool_choice={"type": "any"}))
    (block,) = message["content"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "get_weather", {"city": "Paris"})
    assert block["id"].startswith("toolu_")
    assert (message["stop_reason"], message["stop_sequence"]) == ("tool_use", None)


def test_a_call_that_is_cut_is_text(client: TestClient) -> None:
    message = message_of(ask(client, CALL, tools=[TOOL], max_tokens=2))
    assert message["content"] == [{"type": "text", "text": '{"name": "get_weather",'}]
    assert message["stop_reason"] == "max_tokens"


@pytest.mark.parametrize("field", ["output_format", "output_config"])
def test_a_format_is_enforced_as_a_grammar(client: TestClient, llm: FakeLLM, field: str) -> None:
    asked: dict[str, Any] = {"type": "json_schema", "schema": {"type": "object", "properties": {}}}
    fields = {field: asked if field == "output_format" else {"format": asked}}
    message_of(ask(client, '<answer>{"a": 1}</answer>', **fields))
    assert llm.submitted[-1][1].grammar is not None


@pytest.mark.parametrize("field", ["output_format", "output_config"])
def test_a_format_that_cannot_be_enforced_is_named_as_it_was_sent(client: TestClient, field: str) -> None:
    asked: dict[str, Any] = {"type": "json_schema", "schema": {"type": "objekt"}}
    status, code, _, message = refusal_of(
        ask(client, **{field: asked if field == "output_format" else {"format": asked}})
    )
    assert (status, code) == (400, 5025)
    assert (
        f"{'output_format' if field == 'output_format' else 'output_config.format'}: the JSON schema is not" in message
    )


def test_the_count_of_tokens_is_that_of_the_prompt(client: TestClient, llm: FakeLLM) -> None:
    body = {"model": MODEL, "system": "Be brief.", "messages": [{"role": "user", "content": "one two three"}]}
    counted = client.post(f"{MESSAGES}/count_tokens", json=body)
    usage = message_of(client.post(MESSAGES, json={**body, "max_tokens": 5}))["usage"]
    assert counted.json() == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}
    assert len(llm.submitted) == 1


def test_the_root_has_the_messages_too(client: TestClient) -> None:
    body = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}
    message_of(client.post("/v1/messages", json=body, headers={"anthropic-version": "2023-06-01"}))
    assert client.post("/v1/messages/count_tokens", json={**body, "max_tokens": None}).json()["input_tokens"] == 2


@pytest.mark.parametrize(
    ("fields", "status", "code", "kind", "says"),
    [
        ({"max_tokens": None}, 400, 5006, "invalid_request_error", "max_tokens is missing"),
        ({"max_tokens": 0}, 400, 5006, "invalid_request_error", "max_tokens is 0, less than 1"),
        ({"model": "claude-opus"}, 400, 5007, "invalid_request_error", "No such model claude-opus"),
        ({"lora": "nobody"}, 404, 3037, "not_found_error", "Finetune nobody not found"),
        ({"max_tokens": 5000}, 413, 3010, "request_too_large", "exceeded this model context window"),
        ({"content": "x" * 30_000}, 413, 3006, "request_too_large", "larger than the limit"),
        ({"content": "<fail>"}, 500, 3043, "api_error", "the engine process ended"),
        ({"container": "x"}, 400, 5006, "invalid_request_error", "container is not known; known: "),
        (
            {"thinking": {"type": "enabled"}},
            400,
            5006,
            "invalid_request_error",
            'thinking.type is "enabled"; "disabled" is needed',
        ),
        (
            {"tools": [{"type": "web_search_1", "name": "w"}]},
            400,
            5006,
            "invalid_request_error",
            'tools[0].type is "web_search_1"; "custom"',
        ),
        (
            {"service_tier": "priority"},
            400,
            5006,
            "invalid_request_error",
            'service_tier is "priority"; one of "auto"',
        ),
        ({"output_config": {"effort": "low"}}, 400, 5006, "invalid_request_error", "output_config.effort is not known"),
    ],
)
def test_errors_have_anthropics_form_and_the_codes_of_the_other_routes(
    client: TestClient, fields: dict[str, Any], status: int, code: int, kind: str, says: str
) -> None:
    found = refusal_of(ask(client, **fields))
    assert found[:3] == (status, code, kind)
    assert says in found[3]


def test_an_unknown_route_and_method_have_anthropics_form(client: TestClient) -> None:
    assert refusal_of(client.get(MESSAGES))[:3] == (405, 7001, "invalid_request_error")
    assert refusal_of(client.post(f"{MESSAGES}/batches"))[:3] == (404, 7000, "not_found_error")


def test_a_full_engine_is_a_rate_limit(client: TestClient, llm: FakeLLM) -> None:
    llm.full = True
    response = ask(client)
    assert refusal_of(response)[:3] == (429, 3040, "rate_limit_error")
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "fields",
    [{"metadata": {"user_id": "u"}}, {"service_tier": "auto"}, {"thinking": {"type": "disabled"}}, {"stream": None},
     {"cache_control": {"type": "ephemeral"}}],
)  # fmt: skip
def test_fields_that_say_nothing_about_the_text_are_accepted(client: TestClient, fields: dict[str, Any]) -> None:
    assert message_of(ask(client, **fields))["content"][0]["text"] == "two one user:"


class TestWithTokens:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"api_tokens": ("right",)})

    def test_the_key_of_anthropics_clients_is_a_token(self, client: TestClient) -> None:
        assert refusal_of(ask(client))[:3] == (401, 10000, "authentication_error")
        body = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}
        message_of(client.post(MESSAGES, json=body, headers={"x-api-key": "right"}))
        assert client.post(MESSAGES, json=body, headers={"x-api-key": "wrong"}).status_code == 401
