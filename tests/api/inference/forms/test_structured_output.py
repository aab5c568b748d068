"""JSON mode: the request fields, the grammar that reaches the engine, and the response."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import llguidance
import pytest
from fastapi.testclient import TestClient

from intaglio.api.inference import running_request
from intaglio.api.inference.forms.structured_output import (
    JsonMode,
    completion_grammar,
    grammar_and_notes,
    parse_json_completion,
    read_json_mode,
    read_tool_calls,
)
from intaglio.api.state import MAX_CONCURRENT_GRAMMARS
from intaglio.errors import BadInputError, GrammarError, IncompleteJsonError
from intaglio.request import FinishReason
from intaglio.text.tools import ToolCall, parse_tools
from tests.api.conftest import RUN
from tests.api.inference.test_routes import error_of
from tests.api.inference.test_sse import events_of
from tests.helpers.fakes import FakeLLM

DEADLINE_S = 20.0
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
BY_SCHEMA = {"type": "json_schema", "json_schema": SCHEMA}
WRAPPED = {"type": "json_schema", "json_schema": {"name": "number", "schema": SCHEMA, "strict": True}}
FORMS: list[dict[str, Any]] = [
    {"response_format": BY_SCHEMA},
    {"response_format": WRAPPED},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
    {"guided_json": SCHEMA},
]
ANY_OBJECT: list[dict[str, Any]] = [
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema"}},
    {"response_format": {"type": "json_schema", "json_schema": {}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": True}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": None}}},
    {"guided_json": {}},
]


def prompt_for(answer: str) -> str:
    return f"<answer>{answer}</answer>"


def run(client: TestClient, answer: str, **fields: Any) -> Any:
    return client.post(RUN, json={"prompt": prompt_for(answer), "raw": True, **fields})


def allowed(grammar: str | None, text: str) -> bool:
    assert grammar is not None
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar)
    content = list(text.encode())
    return matcher.try_consume_tokens(content) == len(content) and matcher.is_accepting()


@pytest.mark.parametrize("fields", FORMS)
def test_a_schema_in_every_form_reaches_the_engine(client: TestClient, llm: FakeLLM, fields: Any) -> None:
    result = run(client, '{"n": 5}', **fields).json()["result"]
    assert result["response"] == {"n": 5}
    assert result["finish_reason"] == "stop"
    grammar = llm.submitted[0][1].grammar
    assert allowed(grammar, '{"n": 5}')
    assert not allowed(grammar, '{"n": "five"}')
    assert not allowed(grammar, "five")


def test_slow_schemas_do_not_delay_other_requests(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_end = threading.Semaphore(0), threading.Event()
    running: set[int] = set()
    most: set[int] = set()

    def slow(*asked: Any) -> tuple[str | None, tuple[str, ...]]:
        running.add(threading.get_ident())
        most.add(len(running))
        begun.release()
        assert may_end.wait(DEADLINE_S)
        running.remove(threading.get_ident())
        return grammar_and_notes(*asked)

    monkeypatch.setattr(running_request, "grammar_and_notes", slow)
    with ThreadPoolExecutor(40) as callers:
        waiting = [callers.submit(run, client, "{}", guided_json={}) for _ in range(39)]
        try:
            for _ in range(MAX_CONCURRENT_GRAMMARS):
                assert begun.acquire(timeout=DEADLINE_S)
            plain = callers.submit(client.post, RUN, json={"prompt": "one two", "raw": True})
            assert plain.result(DEADLINE_S).status_code == 200
        finally:
            may_end.set()
        assert {future.result(DEADLINE_S).status_code for future in waiting} == {200}
    assert max(most) == MAX_CONCURRENT_GRAMMARS


@pytest.mark.parametrize("fields", ANY_OBJECT)
def test_json_mode_without_a_schema_allows_any_object(client: TestClient, llm: FakeLLM, fields: Any) -> None:
    assert run(client, '{"a": [1, null]}', **fields).json()["result"]["response"] == {"a": [1, None]}
    grammar = llm.submitted[0][1].grammar
    assert allowed(grammar, '{"a": [1, null]}')
    assert not allowed(grammar, "[1]")


@pytest.mark.parametrize(
    "fields", [{"response_format": {"type": "text"}}, {"response_format": None, "guided_json": None}]
)
def test_response_format_text_adds_no_grammar(client: TestClient, llm: FakeLLM, fields: Any) -> None:
    assert run(client, '{"n": 5}', **fields).json()["result"]["response"] == '{"n": 5}'
    assert llm.submitted[0][1].grammar is None


def test_json_mode_works_with_messages(client: TestClient, llm: FakeLLM) -> None:
    body = {"messages": [{"role": "user", "content": prompt_for('{"n": 5}')}], "response_format": BY_SCHEMA}
    assert client.post(RUN, json=body).json()["result"]["response"] == {"n": 5}
    assert llm.submitted[0][1].grammar is not None


def test_an_answer_keeps_numbers_and_characters(client: TestClient) -> None:
    result = run(client, '{"n": 123456789012345678901234567890, "s": "\\u00e9", "f": 1.0}', guided_json={}).json()
    assert result["result"]["response"] == {"n": 123456789012345678901234567890, "s": "é", "f": 1.0}


def test_json_that_max_tokens_cut_off_is_5024_and_names_the_bound(client: TestClient) -> None:
    response = run(client, '{"n": [1, 2, 3]}', guided_json={}, max_tokens=2)
    assert (response.status_code, error_of(response)["code"]) == (403, 5024)
    message = "AiError: JSON Model couldn't be met: max_tokens (2) cut the completion off before its JSON was complete"
    assert error_of(response)["message"] == message
    assert response.headers["cf-ai-req-id"]


@pytest.mark.parametrize("answer", ['{"n": 5', '{"n": "\\ud800"}', '{"n": 1e999}', "[" * 3000])
def test_json_that_ended_otherwise_is_5024_too(client: TestClient, answer: str) -> None:
    response = run(client, answer, guided_json={})
    assert (response.status_code, error_of(response)["code"]) == (403, 5024)
    assert "max_tokens" not in error_of(response)["message"]


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "object", "properties": {"a": {"not": {"multipleOf": 2}}}, "required": ["a"]}, "#/properties/a/not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"$ref": "https://example.com/schema.json"}, "https://example.com/schema.json"),
        ({"type": "number", "minimum": "low"}, "minimum"),
        ({"type": "strang"}, "strang"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_cannot_be_served_is_5025_and_names_the_keyword(
    client: TestClient, llm: FakeLLM, schema: Any, keyword: str, stream: bool
) -> None:
    for field, given in (("guided_json", schema), ("response_format", {"type": "json_schema", "json_schema": schema})):
        response = run(client, "{}", stream=stream, **{field: given})
        assert (response.status_code, error_of(response)["code"]) == (400, 5025)
        assert keyword in error_of(response)["message"]
        assert f"{field}: " in error_of(response)["message"]
    assert llm.submitted == []


def test_two_ways_at_once_are_refused(client: TestClient) -> None:
    response = run(client, "{}", response_format=BY_SCHEMA, guided_json=SCHEMA)
    assert (response.status_code, error_of(response)["code"]) == (400, 5006)
    assert "both give the completion a form; send one of them" in error_of(response)["message"]


def test_a_stream_gives_the_json_as_it_comes(client: TestClient, llm: FakeLLM) -> None:
    response = run(client, '{"n": 5, "m": 6}', response_format=BY_SCHEMA, stream=True)
    *chunks, done = events_of(response)
    texts = [json.loads(chunk)["response"] for chunk in chunks]
    assert texts == ['{"n":', " 5,", ' "m":', " 6}", ""]
    assert json.loads(chunks[-1])["finish_reason"] == "stop"
    assert done == "[DONE]"
    assert llm.submitted[0][1].grammar is not None


def test_a_stream_cut_off_by_max_tokens_ends_with_length(client: TestClient) -> None:
    *chunks, done = events_of(run(client, '{"n": 5, "m": 6}', guided_json={}, stream=True, max_tokens=2))
    assert json.loads(chunks[-1])["finish_reason"] == "length"
    assert done == "[DONE]"


@pytest.mark.parametrize("given", [{"type": "xml"}, {}, "json_object", 5])
def test_an_unknown_response_format_type_is_refused_with_its_path(given: Any) -> None:
    with pytest.raises(BadInputError, match=r"response_format\.type is "):
        read_json_mode(given)


@pytest.mark.parametrize("given", ["{}", [SCHEMA], True, {"name": "n", "schema": "{}"}])
def test_a_schema_that_is_not_an_object_is_refused(given: Any) -> None:
    with pytest.raises(BadInputError, match="must be a JSON schema"):
        read_json_mode({"type": "json_schema", "json_schema": given})


def test_a_schema_with_a_property_called_schema_is_not_unwrapped() -> None:
    bare = {"type": "object", "properties": {"schema": {"type": "object"}}, "schema": {"x": 1}}
    assert read_json_mode({"type": "json_schema", "json_schema": bare}) == JsonMode(bare, "response_format")


def test_a_tool_whose_arguments_cannot_be_enforced_is_named() -> None:
    tools = parse_tools([{"name": "ok"}, {"name": "odd", "parameters": {"type": "object", "not": {"multipleOf": 2}}}])
    with pytest.raises(GrammarError, match=r"parameters of the tool 'odd'.*multipleOf.*#/not"):
        completion_grammar(None, tools)


def test_tools_and_json_share_a_grammar() -> None:
    use = parse_tools([{"name": "now"}])
    grammar = completion_grammar(JsonMode(SCHEMA, "guided_json"), use)
    assert allowed(grammar, '{"n": 5}')
    assert allowed(grammar, '{"name": "now", "parameters": {}}')
    assert not allowed(grammar, "text")
    required = completion_grammar(JsonMode(SCHEMA, "guided_json"), parse_tools([{"name": "now"}], choice="required"))
    assert not allowed(required, '{"n": 5}')
    assert read_tool_calls('{"n": 5}', use, FinishReason.STOP, 9) == []
    assert read_tool_calls('{"name": "now", "parameters": {}}', use, FinishReason.STOP, 9) == [ToolCall("now", {})]


def test_a_json_parse_error_names_what_ended_the_completion() -> None:
    assert parse_json_completion('{"a": 1}', FinishReason.LENGTH, 9) == {"a": 1}
    with pytest.raises(IncompleteJsonError, match=r"max_tokens \(9\)"):
        parse_json_completion('{"a":', FinishReason.LENGTH, 9)
    with pytest.raises(IncompleteJsonError, match="ended before"):
        parse_json_completion('{"a":', FinishReason.STOP, 9)


def test_schemas_nested_too_deeply_are_refused_in_every_field() -> None:
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(2000):
        deep = {"type": "object", "properties": {"a": deep}}
    for mode, tools in (
        (JsonMode(deep, "guided_json"), None),
        (None, parse_tools([{"name": "a"}, {"name": "deep", "parameters": deep}])),
        (JsonMode(deep, "guided_json"), parse_tools([{"name": "a"}])),
    ):
        with pytest.raises(GrammarError, match=r"(deep'|guided_json:).*nested"):
            completion_grammar(mode, tools)


def test_schemas_over_the_limit_only_together_are_refused() -> None:
    tools = parse_tools(
        [
            {"name": f"t{n}", "parameters": {"type": "object", "properties": {"a": {"enum": ["x" * 2100]}}}}
            for n in range(128)
        ]
    )
    with pytest.raises(GrammarError, match="more than 262144"):
        grammar_and_notes(None, tools)
