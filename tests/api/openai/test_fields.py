"""The table of fields: complete, documented, and what the routes do with each field is what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from intaglio.api.inference.forms.text_grammar import FORM_FIELDS
from intaglio.api.openai.fields import FIELDS, Field, Route, Treatment, fields_of, markdown_rows
from intaglio.api.responses.schema import responses_check
from tests.api.openai.published_fields import (
    OPENAI_CHAT,
    OPENAI_COMPLETIONS,
    OPENAI_RESPONSES,
    VLLM_BEFORE,
    VLLM_CHAT,
    VLLM_COMPLETIONS,
    VLLM_RESPONSES,
    VLLM_STRUCTURED_OUTPUTS,
)
from tests.api.openai.wire import body_of, chat, chunks_of, complete, refusal_of
from tests.api.responses.wire import RESPONSES
from tests.helpers.fakes import FakeLLM

PAGE = (Path(__file__).parents[3] / "docs" / "http_api.md").read_text()
ASK = {Route.CHAT: chat, Route.COMPLETIONS: complete}
OF_ROUTE = [(route, field) for route in Route for field in fields_of(route).values()]


def names(pairs: list[tuple[Route, Field]]) -> list[str]:
    return [f"{route.value}-{field.name}" for route, field in pairs]


def rows(treatment: Treatment) -> list[tuple[Route, Field]]:
    return [(route, field) for route, field in OF_ROUTE if field.treatment is treatment]


def sample(schema: dict[str, Any]) -> Any:
    """A value that this schema of a harmless field allows."""
    return {"string": "x", "boolean": False, "integer": 3, "object": {"a": "b"}}[schema["type"]]


@pytest.mark.parametrize(
    ("route", "published"),
    [
        (Route.CHAT, {*OPENAI_CHAT, *VLLM_CHAT, *VLLM_BEFORE}),
        (Route.COMPLETIONS, {*OPENAI_COMPLETIONS, *VLLM_COMPLETIONS, *VLLM_BEFORE}),
    ],
)
def test_every_published_field_is_in_the_table(route: Route, published: set[str]) -> None:
    assert sorted(published - fields_of(route).keys()) == []


def test_every_published_field_of_responses_and_of_structured_outputs_is_known() -> None:
    check = responses_check()
    known = {*check.schema["properties"], *check.refused}
    assert sorted(set(OPENAI_RESPONSES) - known) == []
    assert sorted(set(VLLM_RESPONSES) - known - {field.name for _, field in rows(Treatment.REFUSED)}) == []
    assert set(VLLM_STRUCTURED_OUTPUTS) == FORM_FIELDS["structured_outputs"]["properties"].keys()


def test_a_field_has_one_row_per_route_and_a_reason() -> None:
    keys = [(route, field.name) for field in FIELDS for route in field.routes]
    assert len(keys) == len(set(keys))
    assert [field.name for field in FIELDS if not field.note or field.note.endswith(".")] == []
    assert [f.name for f in FIELDS if (f.schema is None) != (f.treatment is Treatment.REFUSED)] == []


def test_the_page_has_the_table() -> None:
    assert [row for row in markdown_rows() if row not in PAGE] == []
    section = PAGE.partition("### Every field\n")[2].partition("\n### ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `")] == markdown_rows()


@pytest.mark.parametrize(("route", "field"), rows(Treatment.HARMLESS), ids=names(rows(Treatment.HARMLESS)))
def test_a_harmless_field_changes_nothing_and_its_type_is_checked(
    client: TestClient, llm: FakeLLM, route: Route, field: Field
) -> None:
    assert field.schema is not None
    plain = body_of(ASK[route](client, seed=1))["choices"]
    asked = llm.submitted[-1][1]
    assert body_of(ASK[route](client, seed=1, **{field.name: sample(dict(field.schema))}))["choices"] == plain
    assert llm.submitted[-1][1] == asked
    status, _, message = refusal_of(ASK[route](client, **{field.name: [1]}))
    assert status == 400
    assert f"{field.name} is " in message


@pytest.mark.parametrize(("route", "field"), rows(Treatment.REFUSED), ids=names(rows(Treatment.REFUSED)))
def test_a_refused_field_is_refused_by_name_and_value_unless_it_asks_for_nothing(
    client: TestClient, route: Route, field: Field
) -> None:
    status, code, message = refusal_of(ASK[route](client, **{field.name: {"never": "served"}}))
    assert (status, code) == (400, 5006)
    assert f'{field.name} is not supported: {field.note}. It is {{"never": "served"}}' in message
    for value in (None, "", [], *field.passes):
        body_of(ASK[route](client, **{field.name: value}))


def test_true_does_not_pass_for_one_nor_zero_for_false(client: TestClient) -> None:
    assert refusal_of(chat(client, length_penalty=True))[0] == 400
    assert refusal_of(chat(client, store=0))[0] == 400
    body_of(chat(client, length_penalty=1.0, best_of=1, use_beam_search=False, store=False, service_tier="auto"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_token": 5}, "max_token is not a field of this route; did you mean max_tokens?"),
        ({"temprature": 0}, "temprature is not a field of this route; did you mean temperature?"),
        (
            {"zzz": {"deep": [1]}},
            "zzz is not a field of this route; leave it out; docs/http_api.md lists",
        ),
        ({"k" * 9000: 1}, 'the body["' + "k" * 59 + "... (9000 characters)] is not a field"),
    ],
)
def test_an_unknown_field_is_refused_with_what_resembles_it(
    client: TestClient, fields: dict[str, Any], message: str
) -> None:
    for ask in (chat, complete):
        assert message in refusal_of(ask(client, **fields))[2]
    body_of(chat(client, **dict.fromkeys(fields)))  # null is not sent


BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"min_p": 1.5}, "min_p is 1.5, more than 1"),
    ({"min_p": -0.1}, "min_p is -0.1, less than 0"),
    ({"min_p": "0.1"}, "min_p is "),
    ({"min_tokens": -1}, "min_tokens is -1, less than 0"),
    ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9, more than max_tokens, which is 8"),
    ({"min_tokens": 1.5}, "min_tokens is "),
    ({"stop_token_ids": [-1]}, "less than 0"),
    ({"stop_token_ids": [5000]}, "stop_token_ids has the token id 5000; this model's ids are < 5000"),
    ({"stop_token_ids": list(range(129))}, "stop_token_ids has 129 items, more than 128"),
    ({"stop_token_ids": "1"}, "stop_token_ids is "),
    ({"ignore_eos": "yes"}, "ignore_eos is "),
    ({"include_stop_str_in_output": 1}, "include_stop_str_in_output is "),
    ({"skip_special_tokens": 0}, "skip_special_tokens is "),
    ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens is 0"),
    ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens is -2, less than -1"),
    ({"truncation_side": "middle"}, " is \"middle\""),
    ({"cache_salt": ""}, "cache_salt is empty; at least 1 character is needed"),
    ({"cache_salt": "x" * 1025}, "cache_salt has 1025 characters, more than 1024"),
    ({"max_tokens": 2000}, "more than the context window of 1000 tokens"),
    ({"stream_options": {"chunk_size": 4}}, "stream_options.chunk_size is not known"),
    ({"stream_options": {"continuous_usage_stats": True}}, "needs stream_options.include_usage to be true"),
    ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag is \"x\""),
    ({"structured_outputs": {"jason": {}}}, "structured_outputs.jason is not known"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice is empty; at least 1 item is needed"),
    ({"structured_outputs": {"choice": ["a", 1]}}, "structured_outputs.choice[1] is "),
    ({"structured_outputs": {"regex": "["}}, "structured_outputs.regex: the grammar or JSON schema cannot"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "both give the completion a form; send one of them"),
    ({"structured_outputs": {"json": "{"}}, "structured_outputs.json is not JSON: it ends too early, at line 1"),
    ({"structured_outputs": {"json": "3"}}, "structured_outputs.json must be a JSON schema, which is an object"),
    ({"guided_choice": "a"}, "guided_choice is "),
    ({"guided_regex": "(?=a)b"}, "guided_regex: "),
    ({"guided_grammar": "start = a"}, "guided_grammar: the grammar is neither Lark nor GBNF"),
    ({"guided_grammar": 'start: %json {"type": "object"}'}, "the grammar has %json, which is not read here"),
    ({"guided_grammar": 'root ::= missing'}, "guided_grammar: the grammar is neither Lark nor GBNF"),
    ({"guided_grammar": 'start: "a"', "guided_regex": "a"}, "guided_regex and guided_grammar both give"),
    ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "response_format and guided_regex both"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), BAD_VALUES)
def test_wrong_types_and_values_out_of_bounds_are_refused_by_name(
    client: TestClient, fields: dict[str, Any], message: str
) -> None:
    for ask in (chat, complete):
        response = ask(client, **fields)
        assert response.status_code in (400, 413), response.text
        assert message in refusal_of(response)[2]


def test_a_form_of_text_does_not_go_with_tools_and_json_does(client: TestClient) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    message = refusal_of(chat(client, tools=[tool], structured_outputs={"regex": "a+"}))[2]
    assert "structured_outputs.regex does not go with tools" in message
    body_of(chat(client, "<answer>{}</answer>", tools=[tool], structured_outputs={"json": {"type": "object"}}))


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"structured_outputs": {"choice": ["Paris", "Rome"]}}, 'start: "Paris" | "Rome"'),
        ({"guided_choice": ['a\n"b"', 'a\n"b"']}, r'start: "a\n\"b\""'),
        ({"guided_regex": r"^\d{3}/\d$"}, r"start: /\d{3}\/\d/"),
        ({"guided_regex": r"a\/b\$"}, r"start: /a\/b\$/"),
        ({"guided_regex": "a\nb"}, r"start: /a\nb/"),
        ({"guided_grammar": 'start: "a" | "b"'}, 'start: "a" | "b"'),
        ({"structured_outputs": {"json": '{"type": "integer"}'}}, "start: %json"),
        ({"structured_outputs": {"json_object": True, "disable_fallback": True}}, "start: %json"),
        ({"guided_json": '{"type": "object"}', "guided_decoding_backend": "xgrammar"}, "start: %json"),
        ({"structured_outputs": {}, "response_format": {"type": "text"}}, None),
        ({"structured_outputs": {"json": None, "json_object": False}}, None),
    ],
)
def test_each_form_becomes_a_grammar(
    client: TestClient, llm: FakeLLM, fields: dict[str, Any], start: str | None
) -> None:
    for ask in (chat, complete):
        body_of(ask(client, "<answer>{}</answer>", **fields))
        grammar = llm.submitted[-1][1].grammar
        assert grammar == start or (grammar is not None and start is not None and grammar.startswith(start))


def test_a_grammar_of_llama_cpp_becomes_lark(client: TestClient, llm: FakeLLM) -> None:
    body_of(chat(client, guided_grammar='root ::= "SELECT " column\ncolumn ::= "a" | "b"'))
    grammar = llm.submitted[-1][1].grammar
    assert grammar is not None
    assert "start:" in grammar
    assert "%llguidance" not in grammar


def test_what_becomes_text_and_whose_cache_is_used_reach_the_model(client: TestClient, llm: FakeLLM) -> None:
    body_of(chat(client, include_stop_str_in_output=True, skip_special_tokens=False, cache_salt="s"))
    body_of(complete(client, return_tokens_as_token_ids=True))
    assert [(f.includes_stop, f.names_controls, f.tokens_as_ids) for f in llm.forms] == [
        (True, True, False),
        (False, False, True),
    ]
    assert llm.salts == ["s", None]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"truncate_prompt_tokens": 3}, [10, 13, 14]),
        ({"truncate_prompt_tokens": 3, "truncation_side": "right"}, [10, 11, 12]),
        ({"truncate_prompt_tokens": 9}, [10, 11, 12, 13, 14]),
        ({"truncate_prompt_tokens": 1}, [10]),
        ({"truncate_prompt_tokens": -1, "max_tokens": 996}, [10, 12, 13, 14]),
        ({"truncate_prompt_tokens": -1, "max_tokens": -1}, [10, 11, 12, 13, 14]),
    ],
)
def test_a_long_prompt_is_cut_behind_its_bos_or_at_its_end(
    client: TestClient, llm: FakeLLM, fields: dict[str, Any], kept: list[int]
) -> None:
    llm.tokenizer.encode(" ".join(f"w{number}" for number in range(30)))
    body_of(complete(client, [10, 11, 12, 13, 14], **fields))
    assert llm.submitted[-1][0].split() == [f"w{number}" for number in kept]


def test_usage_comes_with_every_chunk_only_if_that_is_asked_for(client: TestClient) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = chunks_of(chat(client, stream=True, stream_options=options))
    assert all(chunk["usage"]["prompt_tokens"] == last["usage"]["prompt_tokens"] for chunk in chunks)
    assert last["choices"] == []
    *chunks, last = chunks_of(chat(client, stream=True, stream_options={"include_usage": True}))
    assert all("usage" not in chunk for chunk in chunks)


def test_a_response_refuses_names_of_the_other_routes_with_its_own(client: TestClient) -> None:
    response = client.post(RESPONSES, json={"model": "@intaglio/fake", "input": "x", "messages": [{}]})
    assert "send them as 'input'" in response.json()["errors"][0]["message"]
