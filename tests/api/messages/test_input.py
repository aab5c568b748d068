"""What a Messages body asks of the model, as the body of a chat completion; and which blocks are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.api.inference.run_input import PromptEnding
from intaglio.api.messages.input import as_chat_body
from intaglio.api.messages.schema import MESSAGES_SCHEMA, messages_check
from intaglio.api.model_names import NamedModel
from intaglio.api.openai.input import read_chat
from intaglio.errors import BadInputError, IntaglioError
from tests.api.conftest import MODEL
from tests.api.messages.wire import TOOL
from tests.helpers.drawn_cases import drawn_cases

USER = {"role": "user", "content": "Hello"}
TEXT = {"type": "text", "text": "one", "cache_control": {"type": "ephemeral"}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "mild"}
CHECK = messages_check()


def chat_body(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return as_chat_body(CHECK.read({"model": MODEL, "max_tokens": 5, "messages": list(messages) or [USER], **fields}))


def test_settings_are_handed_on_under_the_names_of_chat_completions() -> None:
    body = chat_body(temperature=0.1, top_p=0.5, top_k=3, seed=7, stream=True, stop_sequences=["a"], lora="mine")
    assert body == {
        "model": MODEL, "max_tokens": 5, "temperature": 0.1, "top_p": 0.5, "top_k": 3, "seed": 7, "stream": True,
        "stop": ["a"], "lora": "mine", "messages": [USER],
    }  # fmt: skip


@pytest.mark.parametrize("system", ["Be brief.", [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]])
def test_the_system_text_is_a_message_of_its_own(system: Any) -> None:
    assert chat_body(system=system)["messages"] == [{"role": "system", "content": system}, USER]


def test_blocks_become_messages_in_their_order() -> None:
    turns = [
        USER,
        {"role": "assistant", "content": [TEXT, CALL]},
        {"role": "user", "content": [RESULT, TEXT, TEXT]},
    ]
    plain = {"type": "text", "text": "one"}
    function = {"name": "get_weather", "arguments": {"city": "Paris"}}
    assert chat_body(*turns)["messages"] == [
        USER,
        {
            "role": "assistant",
            "content": [plain],
            "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "mild"},
        {"role": "user", "content": [plain, plain]},
    ]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({}, ""),
        ({"content": None}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"content": "no such city", "is_error": True}, "Error: no such city"),
    ],
)
def test_a_result_may_be_empty_in_blocks_or_an_error(result: dict[str, Any], text: str) -> None:
    block = {"type": "tool_result", "tool_use_id": "toolu_1", **result}
    turns = chat_body({"role": "user", "content": [block]})["messages"]
    assert turns == [{"role": "tool", "tool_call_id": "toolu_1", "content": text}]


@pytest.mark.parametrize(
    ("choice", "read", "parallel"),
    [
        ({"type": "auto"}, "auto", True),
        ({"type": "any"}, "required", True),
        ({"type": "none"}, "none", True),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "get_weather"}, {"type": "function", "function": {"name": "get_weather"}}, True),
    ],
)
def test_tools_and_their_choice_are_those_of_chat_completions(choice: Any, read: Any, parallel: bool) -> None:
    body = chat_body(tools=[TOOL], tool_choice=choice)
    assert body["tools"][0]["function"]["parameters"] == TOOL["input_schema"]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == (read, parallel)
    read_chat(body, NamedModel(MODEL))


@pytest.mark.parametrize("strict", [True, False, None])
def test_a_strict_tool_is_strict(strict: bool | None) -> None:
    (tool,) = chat_body(tools=[{**TOOL, "strict": strict}])["tools"]
    assert tool["function"].get("strict", False) is bool(strict)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"stop": ["a"]}, "stop is not supported: send it as 'stop_sequences'"),
        ({"min_p": 0.1}, "min_p is not a field of this route: chat/completions has it. It is 0.1"),
        ({"functions": [{"name": "f"}]}, "functions is not supported: send them as 'tools'"),
        (
            {"tools": [{"name": "f", "input_schema": {"type": "objekt"}}]},
            'tools[0].input_schema.type is "objekt"; "object" is needed',
        ),
    ],
)
def test_a_field_of_another_form_is_refused_with_what_to_send(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInputError) as refused:
        chat_body(**fields)
    assert says in str(refused.value)


@pytest.mark.parametrize("content", ["And", [TEXT], ""])
def test_a_last_message_of_the_assistant_is_continued(content: Any) -> None:
    body = chat_body(USER, {"role": "assistant", "content": content})
    assert read_chat(body, NamedModel(MODEL)).prompts[0].ending is PromptEnding.OPEN_TURN
    assert read_chat(chat_body(USER), NamedModel(MODEL)).prompts[0].ending is PromptEnding.NEW_TURN


def test_json_does_not_begin_with_a_text_of_the_caller() -> None:
    asked = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    with pytest.raises(BadInputError, match=r"messages\[1\] is of the assistant, whose text the answer would continue"):
        chat_body(USER, {"role": "assistant", "content": "{"}, output_config=asked)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "user", "content": [{"type": "image", "source": {}}]}, 'messages[1].content[0].type is "image"'),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text is missing"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "messages[1].content[0].text is "),
        (
            {"role": "user", "content": [{**RESULT, "content": 5}]},
            "content[0].content is 5; a string or a list is",
        ),
        (
            {"role": "user", "content": [{**RESULT, "content": [5]}]},
            "content[0].content[0] is 5; an object is",
        ),
        ({"role": "user", "content": [{**RESULT, "content": [{"type": "image"}]}]}, 'is "image"'),
        (
            {"role": "user", "content": [{**RESULT, "is_error": "yes"}]},
            '[0].is_error is "yes"; true or false is',
        ),
        ({"role": "user", "content": [CALL]}, 'messages[1].content[0].type is "tool_use"'),
        ({"role": "assistant", "content": "And "}, "messages[1], which the answer continues, ends with whitespace"),
        ({"role": "assistant", "content": [TEXT, CALL]}, "messages[1] calls tools and is the last message"),
        ({"role": "system", "content": "x"}, "messages[1].role"),
    ],
)
def test_what_is_not_served_is_refused_at_its_place(message: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInputError) as refused:
        chat_body(USER, message)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"type": "thinking", "thinking": "hm", "signature": ""}, 'messages[0].content[0].type is "thinking"'),
        ({**CALL, "input": "{}"}, 'messages[0].content[0].input is "{}"; an object is needed'),
        ({"type": "tool_use", "name": "x", "input": {}}, "messages[0].content[0].id is missing"),
    ],
)
def test_blocks_of_the_assistant_are_refused_at_their_place(block: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInputError) as refused:
        chat_body({"role": "assistant", "content": [block]}, USER)
    assert says in str(refused.value)


def test_two_formats_are_refused() -> None:
    asked = {"type": "json_schema", "schema": {}}
    with pytest.raises(BadInputError, match="send only one of them"):
        chat_body(output_format=asked, output_config={"format": asked})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "content"]), inner),
    max_leaves=6,
)


@drawn_cases(200)
@given(st.dictionaries(st.sampled_from(sorted(MESSAGES_SCHEMA["properties"])), JSON, max_size=4))
def test_any_value_of_a_field_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        body = (
            chat_body(**fields)
            if "messages" not in fields
            else as_chat_body(CHECK.read({"model": MODEL, "max_tokens": 5, **fields}))
        )
        read_chat(body, NamedModel(MODEL))
    except IntaglioError as refused:
        assert str(refused)
