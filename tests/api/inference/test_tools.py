"""Tools on the native route: the prompt, the grammar that is enforced, and the response."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.conftest import MODEL, RUN
from tests.api.inference.test_routes import error_of
from tests.api.inference.test_sse import events_of
from tests.api.openai.wire import CHAT
from tests.helpers.fakes import FakeLLM
from tests.helpers.schema_walks import allows

WEATHER = {
    "name": "weather", "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}  # fmt: skip
TOOLS = [WEATHER, {"type": "function", "function": {"name": "now"}}]
CALL = '{"name": "weather", "parameters": {"city": "Paris"}}'
BOTH = f'[{CALL}, {{"name": "now", "parameters": {{}}}}]'
WANTED = {"name": "weather", "arguments": {"city": "Paris"}}


def body_for(answer: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"<answer>{answer}</answer>"}], "tools": TOOLS, **fields}


def run(client: TestClient, answer: str, **fields: Any) -> Any:
    return client.post(RUN, json=body_for(answer, **fields))


def chunks_of(response: Any) -> list[dict[str, Any]]:
    """The chunks of a stream that ended well."""
    *chunks, done = events_of(response)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


@pytest.mark.parametrize("answer", [CALL, f"[{CALL}]", f"```json\n{CALL}\n```"])
def test_a_call_is_answered_as_a_call(client: TestClient, llm: FakeLLM, answer: str) -> None:
    result = run(client, answer).json()["result"]
    assert result["tool_calls"] == [WANTED]
    assert (result["response"], result["finish_reason"]) == ("", "tool_calls")
    assert result["usage"]["completion_tokens"] > 0
    told, params, _, _ = llm.submitted[0]
    assert "system: You can call functions." in told
    assert "The weather of a city." in told
    assert params.grammar is not None


def test_several_calls_keep_their_order(client: TestClient) -> None:
    assert run(client, BOTH).json()["result"]["tool_calls"] == [WANTED, {"name": "now", "arguments": {}}]


@pytest.mark.parametrize("answer", ["It is sunny.", "[1] sunny", "```python\nx\n```"])
def test_a_plain_answer_has_no_key_for_calls(client: TestClient, answer: str) -> None:
    result = run(client, answer).json()["result"]
    assert (result["response"], result["finish_reason"]) == (answer, "stop")
    assert "tool_calls" not in result


def test_a_prompt_may_have_tools_unless_it_is_raw(client: TestClient, llm: FakeLLM) -> None:
    body = {"prompt": f"<answer>{CALL}</answer>", "tools": TOOLS}
    assert client.post(RUN, json=body).json()["result"]["tool_calls"] == [WANTED]
    assert "user: <answer>" in llm.submitted[0][0]
    response = client.post(RUN, json={**body, "raw": True})
    assert (response.status_code, error_of(response)["code"]) == (400, 5006)
    assert "tools cannot be used with raw" in error_of(response)["message"]


def test_functions_are_listed_with_their_code_and_called_like_tools(client: TestClient, llm: FakeLLM) -> None:
    body = body_for('{"name": "add", "parameters": {"a": 1}}', functions=[{"name": "add", "code": "a => a + 1"}])
    result = client.post(RUN, json={**body, "tools": None}).json()["result"]
    assert result["tool_calls"] == [{"name": "add", "arguments": {"a": 1}}]
    assert "a => a + 1" in llm.submitted[0][0]


def test_with_choice_none_the_prompt_lists_no_tools(client: TestClient, llm: FakeLLM) -> None:
    assert run(client, CALL, tool_choice="none").json()["result"]["response"] == CALL
    assert (llm.submitted[0][1].grammar, "functions" in llm.submitted[0][0]) == (None, False)


@pytest.mark.parametrize("fields", [{"tools": []}, {"tools": None}, {"tools": None, "tool_choice": "auto"}])
def test_an_empty_list_of_tools_is_the_same_as_none(client: TestClient, llm: FakeLLM, fields: Any) -> None:
    assert run(client, "Hi", **fields).json()["result"]["response"] == "Hi"
    assert llm.submitted[0][1].grammar is None


def test_the_choice_reaches_the_grammar(client: TestClient, llm: FakeLLM) -> None:
    run(client, CALL)
    run(client, CALL, tool_choice="required")
    run(client, CALL, tool_choice={"type": "function", "function": {"name": "weather"}})
    grammars = [params.grammar or "" for _, params, _, _ in llm.submitted]
    assert ["TEXT" in grammar for grammar in grammars] == [True, False, False]
    assert ["now" in grammar for grammar in grammars] == [True, True, False]


def test_an_invalid_tool_choice_is_refused_with_the_allowed_ones(client: TestClient, llm: FakeLLM) -> None:
    response = run(client, CALL, tool_choice={"type": "function", "function": {"name": "nobody"}})
    assert (response.status_code, error_of(response)["code"]) == (400, 5006)
    assert "not among the tools: weather, now" in error_of(response)["message"]
    assert llm.submitted == []


ODD_PARAMETERS = {
    "type": "object",
    "properties": {"x": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}},
}
ODD = {"name": "odd", "parameters": ODD_PARAMETERS}
ODD_CALL = '{"name": "odd", "parameters": {"x": ["a", "a"]}}'


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {**ODD, "strict": True}}, WEATHER]},
        {"tools": [ODD], "tool_choice": "required"},
        {"tools": [ODD, WEATHER], "tool_choice": {"type": "function", "function": {"name": "odd"}}},
    ],
)
def test_a_tool_whose_schema_cannot_be_enforced_is_5025_if_it_is_strict_or_required(
    client: TestClient, fields: dict[str, Any]
) -> None:
    response = run(client, CALL, **fields)
    assert (response.status_code, error_of(response)["code"]) == (400, 5025)
    assert "parameters of the tool 'odd'" in error_of(response)["message"]
    assert '"uniqueItems" at #/properties/x' in error_of(response)["message"]


def test_a_tool_that_is_not_strict_may_have_any_arguments_if_its_schema_cannot_be_enforced(
    client: TestClient, llm: FakeLLM
) -> None:
    response = run(client, ODD_CALL, tools=[ODD, WEATHER])
    assert response.json()["result"]["tool_calls"] == [{"name": "odd", "arguments": {"x": ["a", "a"]}}]
    (note,) = response.json()["messages"]
    assert note["message"].startswith("arguments of the tool 'odd' are held to any JSON object")
    assert '"uniqueItems" at #/properties/x' in note["message"]
    assert json.loads(response.headers["intaglio-messages"]) == [note["message"]]
    assert "uniqueItems" in llm.submitted[0][0], "the model is still told the schema"
    grammar = llm.submitted[0][1].grammar
    assert grammar is not None
    assert allows(grammar, ODD_CALL)
    assert not allows(grammar, '{"name": "weather", "parameters": {"city": 1}}'), "the other tool is still enforced"


def test_a_stream_says_in_a_header_that_arguments_are_not_enforced(client: TestClient) -> None:
    response = run(client, ODD_CALL, tools=[ODD], stream=True)
    assert "any JSON object" in response.headers["intaglio-messages"]


def test_the_chat_route_says_in_a_header_that_arguments_are_not_enforced(client: TestClient) -> None:
    tool = {"type": "function", "function": ODD}
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"<answer>{ODD_CALL}</answer>"}], "tools": [tool]}
    response = client.post(CHAT, json=body)
    assert response.json()["choices"][0]["finish_reason"] == "tool_calls"
    assert "any JSON object" in response.headers["intaglio-messages"]
    plain = {**body, "tools": [{"type": "function", "function": WEATHER}]}
    assert "intaglio-messages" not in client.post(CHAT, json=plain).headers


def test_a_call_that_max_tokens_cut_off_is_5024(client: TestClient) -> None:
    response = run(client, CALL, max_tokens=3)
    assert (response.status_code, error_of(response)["code"]) == (403, 5024)
    assert "max_tokens (3) cut the tool call off" in error_of(response)["message"]


def test_json_mode_with_tools_gives_json_or_a_call(client: TestClient) -> None:
    fields = {"guided_json": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    assert run(client, '{"n": 5}', **fields).json()["result"]["response"] == {"n": 5}
    assert run(client, CALL, **fields).json()["result"]["tool_calls"] == [WANTED]
    texts = [chunk["response"] for chunk in chunks_of(run(client, '{"n": 5}', stream=True, **fields))]
    assert texts == ['{"n": 5}', ""]


def test_a_streamed_call_comes_whole_and_then_the_usage(client: TestClient) -> None:
    response = run(client, BOTH, stream=True)
    calls, last = chunks_of(response)
    assert calls == {
        "response": "",
        "tool_calls": [{"index": 0, **WANTED}, {"index": 1, "name": "now", "arguments": {}}],
    }
    assert (last["response"], last["finish_reason"]) == ("", "tool_calls")
    assert last["usage"]["completion_tokens"] > 0
    assert "tool_calls" not in last
    assert "null" not in response.text


def test_streamed_text_beside_tools_comes_as_it_is_generated(client: TestClient) -> None:
    chunks = chunks_of(run(client, "It is sunny.", stream=True))
    assert [chunk["response"] for chunk in chunks] == ["It", " is", " sunny.", ""]
    assert all("tool_calls" not in chunk for chunk in chunks)


def test_text_is_held_back_while_it_may_become_a_call(client: TestClient) -> None:
    chunks = chunks_of(run(client, "[ 1] is the first.", stream=True))
    assert [chunk["response"] for chunk in chunks] == ["[ 1]", " is", " the", " first.", ""]
    assert [chunk["response"] for chunk in chunks_of(run(client, "[", stream=True))] == ["[", ""]


def test_a_streamed_call_that_was_cut_off_is_an_error_event_and_no_text(client: TestClient) -> None:
    (last,) = events_of(run(client, CALL, stream=True, max_tokens=3))
    content = json.loads(last)
    assert (content["response"], content["finish_reason"]) == ("", "error")
    assert content["errors"][0]["code"] == 5024


@pytest.mark.parametrize("fields", [{}, {"tools": None, "guided_json": {}}])
def test_an_error_after_the_first_byte_ends_a_stream_with_tools(client: TestClient, fields: Any) -> None:
    *chunks, last = events_of(run(client, "It is <fail> sunny.", stream=True, **fields))
    assert [json.loads(chunk)["response"] for chunk in chunks] == ["It", " is"]
    content = json.loads(last)
    assert (content["response"], content["finish_reason"]) == ("", "error")
    assert content["errors"] == [{"code": 3043, "message": "AiError: the engine process ended"}]


def test_results_and_calls_of_earlier_turns_reach_the_model(client: TestClient, llm: FakeLLM) -> None:
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "weather", "arguments": {"city": "Paris"}}]},
        {"role": "tool", "name": "weather", "content": "sunny"},
    ]
    assert client.post(RUN, json={"messages": messages, "tools": TOOLS}).status_code == 200
    assert "tool: sunny" in llm.submitted[0][0]
