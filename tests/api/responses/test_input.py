"""What the items of an input ask of the model, as messages of a chat completion; and which are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.api.inference.forms.text_grammar import TextGrammar
from intaglio.api.inference.run_input import PromptEnding
from intaglio.api.model_names import NamedModel
from intaglio.api.openai.input import read_chat
from intaglio.api.responses.input import as_chat_body, read_items
from intaglio.api.responses.schema import RESPONSES_SCHEMA, VLLM_FIELDS, responses_check
from intaglio.errors import BadInputError, IntaglioError
from tests.api.conftest import MODEL
from tests.api.responses.wire import TOOL
from tests.helpers.drawn_cases import drawn_cases

CHECK = responses_check()


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def chat_body(**fields: Any) -> dict[str, Any]:
    return as_chat_body(CHECK.read({"model": MODEL, "input": "Hello", **fields}))


def test_a_text_is_the_users() -> None:
    assert chat_body(instructions="Be brief.")["messages"] == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"},
    ]  # fmt: skip


def test_items_become_messages_in_their_order() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}", "status": "x"}
    items = [
        {"role": "developer", "content": "Rules"},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "c", "annotations": []}]},
        call, {**call, "call_id": "call_2"},
        {"type": "function_call_output", "call_id": "call_1", "output": "mild"},
        {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "cold"}]},
    ]  # fmt: skip
    function = {"name": "f", "arguments": "{}"}
    assert read_items(items) == [
        {"role": "system", "content": [part("Rules")]},
        {"role": "user", "content": [part("a"), part("b")]},
        {"role": "assistant", "content": [part("c")], "tool_calls": [
            {"id": "call_1", "type": "function", "function": function},
            {"id": "call_2", "type": "function", "function": function},
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": "mild"},
        {"role": "tool", "tool_call_id": "call_2", "content": "cold"},
    ]  # fmt: skip


def test_tools_and_formats_are_those_of_chat_completions() -> None:
    asked = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    body = chat_body(tools=[TOOL], tool_choice="required", max_output_tokens=9, text={"format": asked})
    assert body["tools"][0]["function"]["parameters"] == TOOL["parameters"]
    assert (body["tool_choice"], body["max_tokens"]) == ("required", 9)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    read_chat(body, NamedModel(MODEL))


def test_vllms_fields_are_those_of_chat_completions() -> None:
    sent: dict[str, Any] = {
        "top_k": 3, "seed": 7, "stop": ["a"], "include_stop_str_in_output": True, "ignore_eos": True,
        "skip_special_tokens": False, "logit_bias": {"5": 1}, "frequency_penalty": 0.1, "presence_penalty": 0.2,
        "repetition_penalty": 1.1, "structured_outputs": {"choice": ["a", "b"]}, "cache_salt": "s",
    }  # fmt: skip
    assert sent.keys() == set(VLLM_FIELDS)
    asked = read_chat(chat_body(**sent), NamedModel(MODEL))
    assert asked == read_chat({"model": MODEL, "messages": chat_body()["messages"], **sent}, NamedModel(MODEL))
    assert asked.prompts[0].text_grammar == TextGrammar("choice", ["a", "b"], "structured_outputs.choice")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"min_p": 0.1}, "min_p is not a field of this route: chat/completions has it. It is 0.1"),
        ({"n": 2}, "n is not a field of this route: chat/completions has it. It is 2"),
        ({"logprobs": True}, "logprobs is not supported: send 'top_logprobs'"),
        ({"priority": 3}, "priority is not supported: all requests have one priority"),
        ({"vllm_xargs": {"a": 1}}, "vllm_xargs is not supported"),
        ({"max_token": 3}, "max_token is not known; did you mean max_output_tokens?"),
        ({"tool_choice": "maybe"}, 'tool_choice is "maybe"; it must be auto, none, required or {"type": "function",'),
        ({"tool_choice": {"type": "web_search"}}, 'none, required or {"type": "function", "name": ...}'),
    ],
)  # fmt: skip
def test_a_field_of_another_form_is_refused_with_what_to_send(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInputError) as refused:
        chat_body(**fields)
    assert says in str(refused.value)


def test_a_refused_field_that_asks_for_nothing_passes() -> None:
    nothing = {"messages": [], "enable_response_messages": False, "logprobs": False, "priority": 0, "min_p": None}
    assert chat_body(**nothing) == chat_body()


def test_a_named_function_may_be_in_the_form_of_chat_completions() -> None:
    named = {"type": "function", "function": {"name": TOOL["name"]}}
    assert chat_body(tools=[TOOL], tool_choice=named)["tool_choice"] == named


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}, "input[0].content[0].type"),
        (
            {"role": "user", "content": [{"type": "input_text"}]},
            "input[0].content[0].text is missing",
        ),
        ({"role": "user"}, "input[0].content is missing"),
        ({"role": "tool", "content": "x"}, 'input[0].role is "tool"'),
        ({"type": "reasoning", "summary": []}, 'input[0].type is "reasoning"'),
        ({"type": "item_reference", "id": "x"}, 'input[0].type is "item_reference"'),
        ({}, "input[0].type is null"),
        (
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": {}},
            "input[0].arguments is {}; a string",
        ),
        ({"type": "function_call_output", "call_id": "c", "output": 5}, "input[0].output is 5; a list is needed"),
    ],
)
def test_what_is_not_served_is_refused_at_its_place(item: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInputError) as refused:
        chat_body(input=[item])
    assert says in str(refused.value)


def test_a_last_item_of_the_assistant_is_a_complete_one_as_for_openai() -> None:
    body = chat_body(input=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    assert read_chat(body, NamedModel(MODEL)).prompts[0].ending is PromptEnding.NEW_TURN


def test_a_format_without_a_schema_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"text\.format\.schema is missing"):
        chat_body(text={"format": {"type": "json_schema", "name": "x"}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "role", "content"]), inner),
    max_leaves=6,
)


@drawn_cases(200)
@given(st.dictionaries(st.sampled_from(sorted(RESPONSES_SCHEMA["properties"])), JSON, max_size=4))
def test_any_value_of_a_field_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        read_chat(chat_body(**fields), NamedModel(MODEL))
    except IntaglioError as refused:
        assert str(refused)
