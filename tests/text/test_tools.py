from __future__ import annotations

import json
from typing import Any

import pytest

from intaglio.errors import BadInputError
from intaglio.text import Tokenizer, fold_messages
from intaglio.text.chat.gemma_turns import GemmaFormat
from intaglio.text.tools import MAX_TOOLS, Tool, ToolCall, ToolUse, call_text, parse_tools, tool_prompt, with_tools

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FLAT = {"name": "get_weather", "description": "The weather of a city.", "parameters": CITY}
WRAPPED = {"type": "function", "function": FLAT}


def use_of(*tools: Any, **named: Any) -> ToolUse:
    use = parse_tools(tools, **named)
    assert use is not None
    return use


def test_both_forms_of_a_tool_are_read_alike() -> None:
    assert use_of(FLAT) == use_of(WRAPPED)
    (tool,) = use_of(FLAT).tools
    assert tool == Tool("get_weather", "The weather of a city.", {**CITY, "additionalProperties": False})


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_without_tools_there_is_no_tool_use(nothing: Any) -> None:
    assert parse_tools(nothing, nothing, "auto") is None
    assert parse_tools(nothing, nothing, "none") is None


def test_with_choice_none_there_is_no_tool_use() -> None:
    assert parse_tools([FLAT], choice="none") is None


@pytest.mark.parametrize(("choice", "required"), [(None, False), ("auto", False), ("required", True), ("any", True)])
def test_choice_says_whether_a_call_is_required(choice: Any, required: bool) -> None:
    assert use_of(FLAT, choice=choice).required is required


def test_a_named_choice_allows_one_call_of_that_tool_and_the_prompt_lists_all() -> None:
    use = use_of(FLAT, {"name": "other"}, choice={"type": "function", "function": {"name": "other"}})
    assert (use.required, use.parallel, use.only) == (True, False, "other")
    assert [tool.name for tool in use.callable_tools] == ["other"]
    assert "get_weather" in tool_prompt(use)
    assert "Call the function other" in tool_prompt(use)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("get_weather", "it must be auto, none, required or"),
        (5, "it must be auto"),
        ({"type": "function", "function": {}}, "it must be auto"),
        ({"type": "function", "function": {"name": "other"}}, "'other', which is not among the tools: get_weather"),
    ],
)  # fmt: skip
def test_an_invalid_choice_is_refused(choice: Any, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        parse_tools([FLAT], choice=choice)


def test_a_required_call_needs_tools() -> None:
    with pytest.raises(BadInputError, match="there are no tools"):
        parse_tools(None, choice="required")


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("get_weather", r"tools\[1\] is not an object"),
        ({"type": "custom", "name": "x"}, "type 'custom'"),
        ({"description": "nameless"}, r"tools\[1\] has no name"),
        ({"name": ""}, "has no name"),
        ({"type": "function", "function": "x"}, "has no name"),
        ({"name": "x", "description": 5}, "must be strings"),
        ({"name": "x", "parameters": []}, "parameters of the tool 'x' must be the JSON schema of an object"),
        ({"name": "x", "parameters": {"type": "array"}}, "must be the JSON schema of an object"),
        ({"name": "get_weather"}, "two tools have the name 'get_weather'"),
    ],
)
def test_a_bad_tool_is_named(tool: Any, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        parse_tools([FLAT, tool])


def test_the_number_of_tools_is_bounded() -> None:
    with pytest.raises(BadInputError, match=rf"{MAX_TOOLS + 1} tools.* {MAX_TOOLS}\b"):
        parse_tools([{"name": f"t{number}"} for number in range(MAX_TOOLS + 1)])
    with pytest.raises(BadInputError, match=f"{MAX_TOOLS + 1} tools"):  # counted before any of them is read
        parse_tools([{}] * MAX_TOOLS, [{}])


@pytest.mark.parametrize(
    ("parameters", "read"),
    [
        (None, {"type": "object", "properties": {}, "additionalProperties": False}),
        ({}, {"type": "object"}),
        ({"properties": {}}, {"type": "object", "properties": {}, "additionalProperties": False}),
        ({"type": "object", "properties": {}, "additionalProperties": True},
         {"type": "object", "properties": {}, "additionalProperties": True}),
        ({"$ref": "#/$defs/A", "$defs": {"A": CITY}}, {"type": "object", "$ref": "#/$defs/A", "$defs": {"A": CITY}}),
    ],
)  # fmt: skip
def test_arguments_that_were_not_declared_cannot_be_written(parameters: Any, read: Any) -> None:
    assert use_of({"name": "x", "parameters": parameters}).tools[0].parameters == read


def test_a_function_with_code_is_listed_with_it() -> None:
    use = parse_tools(None, [{"name": "add", "code": "(a, b) => a + b"}])
    assert use is not None
    assert use.tools == (Tool("add", "", {"type": "object"}, "(a, b) => a + b"),)
    assert '{"name": "add", "code": "(a, b) => a + b"}' in tool_prompt(use)


def test_the_prompt_lists_every_tool_as_json_and_shows_the_form_of_a_call() -> None:
    text = tool_prompt(use_of(FLAT, {"name": "straße"}))
    listed = [json.loads(line) for line in text.split("The functions are:\n")[1].split("\n")]
    assert [tool["name"] for tool in listed] == ["get_weather", "straße"]
    assert listed[0]["parameters"]["required"] == ["city"]
    assert '{"name": "get_weather", "parameters": {"city": "Paris"}}' in text


def test_the_prompt_asks_for_a_call_as_the_choice_says() -> None:
    assert "If none does, answer in plain words" in tool_prompt(use_of(FLAT))
    assert "array" in tool_prompt(use_of(FLAT))
    assert "array" not in tool_prompt(use_of(FLAT, parallel=False))
    required = tool_prompt(use_of(FLAT, choice="required"))
    assert "Call one of the functions" in required
    assert "plain words" not in required


def test_tools_are_listed_after_the_callers_system_text_and_before_the_conversation() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    use = use_of(FLAT)
    (turn,) = fold_messages(with_tools(messages, use))
    assert turn.text == f"Be brief.\n\n{tool_prompt(use)}\n\nHi"


def test_a_message_is_continued_behind_the_description_of_tools(tiny_tokenizer: Tokenizer) -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chat, messages = GemmaFormat(tiny_tokenizer), with_tools(talk, use_of(FLAT))
    ids = chat.render(messages[:1] + messages[2:])
    assert chat.render(messages, continue_final=True) == ids[:-1] + tiny_tokenizer.encode("\nb")


def test_an_empty_conversation_stays_empty() -> None:
    assert with_tools([], use_of(FLAT)) == []


def test_one_call_is_an_object_and_several_are_an_array() -> None:
    calls = [ToolCall("a", {"x": "é"}), ToolCall("b", {})]
    assert call_text(calls[:1]) == '{"name": "a", "parameters": {"x": "é"}}'
    assert call_text(calls) == '[{"name": "a", "parameters": {"x": "é"}}, {"name": "b", "parameters": {}}]'
