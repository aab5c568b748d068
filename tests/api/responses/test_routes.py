"""A response that is not streamed: its items, what it repeats, and its state."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from intaglio.settings import Settings
from tests.api.conftest import MODEL
from tests.api.openai.wire import body_of, refusal_of
from tests.api.responses.wire import CALL, RESPONSES, TOOL, create, read, text_of
from tests.helpers.fakes import FakeLLM


def prompt_of(llm: FakeLLM) -> str:
    """The prompt of the last request, as the fake writes its messages."""
    return llm.submitted[-1][0]


def test_a_response_is_bare_and_has_text_status_and_usage(client: TestClient) -> None:
    response = body_of(create(client))
    assert text_of(response) == "two one user:"
    assert (response["object"], response["status"], response["model"]) == ("response", "completed", MODEL)
    assert (response["error"], response["incomplete_details"], response["id"][:5]) == (None, None, "resp_")
    assert response["usage"] == {
        "input_tokens": 3, "input_tokens_details": {"cached_tokens": 1},
        "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 6,
    }  # fmt: skip


def test_a_response_repeats_what_it_was_asked_with(client: TestClient) -> None:
    sent = {
        "instructions": "Be brief.", "max_output_tokens": 40, "temperature": 0.25, "top_p": 0.5,
        "metadata": {"team": "a"}, "tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False,
        "user": "u", "store": False, "text": {"format": {"type": "text"}},
    }  # fmt: skip
    response = body_of(create(client, **sent))
    assert {name: response[name] for name in sent} == sent


def test_max_output_tokens_leaves_a_response_incomplete(client: TestClient) -> None:
    response = body_of(create(client, max_output_tokens=1))
    assert (text_of(response), response["status"]) == ("two", "incomplete")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"


def test_a_call_of_a_tool_is_an_item(client: TestClient) -> None:
    response = body_of(create(client, CALL, tools=[TOOL], tool_choice={"type": "function", "name": "get_weather"}))
    (item,) = response["output"]
    assert (item["type"], item["name"], item["status"]) == ("function_call", "get_weather", "completed")
    assert json.loads(item["arguments"]) == {"city": "Paris"}
    assert item["id"] != item["call_id"]


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_a_format_is_enforced_as_a_grammar(client: TestClient, llm: FakeLLM, kind: str) -> None:
    asked = {"type": kind, "name": "x", "schema": {"type": "object"}, "strict": True}
    response = body_of(create(client, '<answer>{"a": 1}</answer>', text={"format": asked}))
    assert text_of(response) == '{"a": 1}'
    assert llm.submitted[-1][1].grammar is not None


def test_settings_reach_the_engine(client: TestClient, llm: FakeLLM) -> None:
    body_of(create(client, temperature=0.25, top_p=0.5, max_output_tokens=7, seed=3))
    params = llm.submitted[-1][1]
    assert (params.temperature, params.top_p, params.max_tokens, params.seed) == (0.25, 0.5, 7, 3)


def test_the_root_has_the_responses_too(client: TestClient) -> None:
    made = body_of(client.post("/v1/responses", json={"model": MODEL, "input": "a"}))
    assert body_of(client.get(f"/v1/responses/{made['id']}")) == made
    assert refusal_of(client.get(f"{RESPONSES}/{made['id']}"))[:2] == (404, 5006)  # it is another account's


# -- state


def test_a_stored_response_is_read_as_it_was_sent(client: TestClient) -> None:
    response = body_of(create(client))
    assert read(client, response["id"]) == response


def test_a_response_continues_the_conversation_of_another(client: TestClient, llm: FakeLLM) -> None:
    first = body_of(create(client, "one", instructions="Be brief."))
    second = body_of(create(client, "two", previous_response_id=first["id"]))
    assert prompt_of(llm).count("assistant:") == 1
    assert "Be brief." not in prompt_of(llm)  # instructions are of one response
    third = body_of(create(client, "three", previous_response_id=second["id"], instructions="Be kind."))
    prompt = prompt_of(llm)
    answer = text_of(first)
    assert prompt.startswith(f"system: Be kind. user: one assistant: {answer} user: two assistant: ")
    assert prompt.endswith(f"{text_of(second)} user: three")
    assert third["previous_response_id"] == second["id"]


def test_the_result_of_a_call_continues_it(client: TestClient, llm: FakeLLM) -> None:
    first = body_of(create(client, CALL, tools=[TOOL]))
    (call,) = first["output"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "mild"}
    body_of(create(client, [result], previous_response_id=first["id"], tools=[TOOL]))
    assert "tool: mild" in prompt_of(llm)


def test_without_store_nothing_is_kept(client: TestClient) -> None:
    response = body_of(create(client, store=False))
    assert response["store"] is False
    assert refusal_of(client.get(f"{RESPONSES}/{response['id']}"))[:2] == (404, 5006)
    continued = create(client, "more", previous_response_id=response["id"])
    assert refusal_of(continued)[:2] == (404, 5006)


def test_a_deleted_response_is_gone_and_those_that_continued_it_stay(client: TestClient) -> None:
    first = body_of(create(client, "one"))
    second = body_of(create(client, "two", previous_response_id=first["id"]))
    gone = body_of(client.delete(f"{RESPONSES}/{first['id']}"))
    assert gone == {"id": first["id"], "object": "response", "deleted": True}
    assert refusal_of(client.delete(f"{RESPONSES}/{first['id']}"))[:2] == (404, 5006)
    assert refusal_of(create(client, "x", previous_response_id=first["id"]))[:2] == (404, 5006)
    assert body_of(create(client, "three", previous_response_id=second["id"]))["status"] == "completed"


def test_a_response_belongs_to_its_account(client: TestClient) -> None:
    response_id = body_of(create(client))["id"]
    elsewhere = f"{RESPONSES.replace('acc0', 'other')}"
    assert refusal_of(client.get(f"{elsewhere}/{response_id}"))[:2] == (404, 5006)
    assert refusal_of(client.delete(f"{elsewhere}/{response_id}"))[:2] == (404, 5006)
    body = {"model": MODEL, "input": "x", "previous_response_id": response_id}
    assert refusal_of(client.post(elsewhere, json=body))[:2] == (404, 5006)


class TestWithLittleSpace:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_response_bytes": 3000})

    def test_the_oldest_responses_make_room(self, client: TestClient) -> None:
        made = [body_of(create(client))["id"] for _ in range(5)]
        kept = [client.get(f"{RESPONSES}/{one}").status_code == 200 for one in made]
        assert kept[-1]
        assert not kept[0]

    def test_a_response_that_never_fits_is_refused_unless_it_is_not_stored(self, client: TestClient) -> None:
        huge = create(client, [{"role": "user", "content": "x" * 4000}])
        status, code, message = refusal_of(huge)
        assert (status, code) == (413, 3006)
        assert "'store': false" in message
        assert body_of(create(client, "x" * 4000, store=False))["status"] == "completed"


@pytest.mark.parametrize(
    ("fields", "status", "code", "says"),
    [
        ({"previous_response_id": "resp_no"}, 404, 5006, "Response 'resp_no' not found"),
        ({"previous_response_id": "a\0b"}, 404, 5006, "not found"),
        ({"model": "gpt-5"}, 400, 5007, "No such model gpt-5"),
        ({"lora": "nobody"}, 404, 3037, "Finetune nobody not found"),
        ({"input": []}, 400, 5006, "input is empty; at least 1 item is needed"),
        ({"background": True}, 400, 5006, "background is true; false is needed"),
        ({"conversation": "conv_1"}, 400, 5006, "conversation is not supported"),
        ({"prompt": {"id": "p"}}, 400, 5006, "prompt is not supported"),
        ({"reasoning": {"effort": "high"}}, 400, 5006, 'reasoning.effort is "high"; "none" is needed'),
        (
            {"include": ["file_search_call.results"]},
            400,
            5006,
            'include[0] is "file_search_call.results"; "message',
        ),
        ({"top_logprobs": 21}, 400, 5006, "top_logprobs is 21, more than 20"),
        ({"truncation": "auto"}, 400, 5006, 'truncation is "auto"; "disabled" is needed'),
        ({"tools": [{"type": "web_search"}]}, 400, 5006, 'tools[0].type is "web_search"; "function" is needed'),
        ({"text": {"verbosity": "low"}}, 400, 5006, 'text.verbosity is "low"; "medium" is needed'),
        ({"max_tokens": 5}, 400, 5006, "max_tokens is not supported: send it as 'max_output_tokens'"),
        ({"min_p": 0.5}, 400, 5006, "min_p is not a field of this route"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "objekt"}}}},
            400,
            5025,
            "text.format: the JSON schema is not valid at #/type",
        ),
        (
            {"text": {"format": {"type": "json_object"}}, "structured_outputs": {"choice": ["a"]}},
            400,
            5006,
            "text.format and structured_outputs.choice both give the completion a form; send one of them",
        ),
        ({"input": "<fail>"}, 500, 3043, "the engine process ended"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    client: TestClient, fields: dict[str, Any], status: int, code: int, says: str
) -> None:
    found = refusal_of(client.post(RESPONSES, json={"model": MODEL, "input": "x", **fields}))
    assert found[:2] == (status, code)
    assert says in found[2]


def test_an_unknown_query_parameter_of_a_read_is_refused(client: TestClient) -> None:
    response_id = body_of(create(client))["id"]
    assert '"stream" is not known' in refusal_of(client.get(f"{RESPONSES}/{response_id}?stream=true"))[2]


@pytest.mark.parametrize(
    "fields",
    [{"service_tier": "auto"}, {"user": "u"}, {"prompt_cache_key": "k"}, {"stream_options": {}},
     {"background": False}, {"reasoning": {"effort": None}}, {"include": []}, {"truncation": "disabled"},
     {"conversation": None}, {"max_tool_calls": 3}],
)  # fmt: skip
def test_fields_that_say_nothing_about_the_text_are_accepted(client: TestClient, fields: dict[str, Any]) -> None:
    assert text_of(body_of(create(client, **fields))) == "two one user:"
