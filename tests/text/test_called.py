from __future__ import annotations

from typing import Any

import pytest

from intaglio.errors import BadInputError, ChatError
from intaglio.text import fold_messages

FLAT = {"name": "add", "arguments": {"x": 5}}
OPENAI = {"id": "call-1", "type": "function", "function": {"name": "add", "arguments": '{"x": 5}'}}
CALL = '{"name": "add", "parameters": {"x": 5}}'


def texts(*messages: Any) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in fold_messages(messages)]


def called(*calls: Any, content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


@pytest.mark.parametrize("call", [FLAT, OPENAI, {"function": {"name": "add", "arguments": {"x": 5}}}])
def test_a_call_of_an_earlier_turn_stands_as_the_model_wrote_it(call: Any) -> None:
    assert texts({"role": "user", "content": "Hi"}, called(call)) == [("user", "Hi"), ("model", CALL)]
    assert texts({"role": "user", "content": "Hi"}, called(call, call)) == [
        ("user", "Hi"),
        ("model", f"[{CALL}, {CALL}]"),
    ]


def test_words_before_a_call_are_kept() -> None:
    assert texts(called(FLAT, content=" Let me see. ")) == [("model", f"Let me see.\n\n{CALL}")]


@pytest.mark.parametrize("nothing", [None, []])
def test_a_turn_without_calls_is_its_text(nothing: Any) -> None:
    assert texts({"role": "assistant", "content": "Hi", "tool_calls": nothing}) == [("model", "Hi")]


@pytest.mark.parametrize("arguments", [None, "", " ", {}, "{}"])
def test_a_call_may_have_no_arguments(arguments: Any) -> None:
    assert texts(called({"name": "now", "arguments": arguments})) == [("model", '{"name": "now", "parameters": {}}')]


def test_a_result_is_headed_by_the_tools_name_or_by_that_of_the_call_it_answers() -> None:
    assert texts({"role": "tool", "name": "add", "content": "10"}) == [("user", "Result of add:\n10")]
    answered = texts(called(OPENAI), {"role": "tool", "tool_call_id": "call-1", "content": "10"})
    assert answered == [("model", CALL), ("user", "Result of add:\n10")]
    unknown = texts(called(OPENAI), {"role": "tool", "tool_call_id": "call-2", "content": "10"})
    assert unknown == [("model", CALL), ("user", "10")]


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ({"name": "add"}, "tool_calls of message 0 is not an array"),
        (["add"], r"tool_calls\[0\] of message 0 is not an object"),
        ([FLAT, {"arguments": {}}], r"tool_calls\[1\] of message 0 has no name"),
        ([{"function": "add"}], "has no name"),
        ([{"name": "add", "arguments": "{"}], "are not JSON"),
        ([{"name": "add", "arguments": [1]}], "are not a JSON object"),
        ([{"name": "add", "arguments": "5"}], "are not a JSON object"),
        ([{"name": "add", "arguments": '{"a":' * 5000}], "are not JSON"),
    ],
)
def test_a_call_that_cannot_be_read_is_named(calls: Any, words: str) -> None:
    with pytest.raises(ChatError, match=words):
        texts({"role": "assistant", "content": None, "tool_calls": calls})


def test_arguments_without_bottom_are_refused() -> None:
    arguments: dict[str, Any] = {}
    for _ in range(5000):
        arguments = {"a": arguments}
    with pytest.raises(BadInputError, match="nested too deeply"):
        texts(called({"name": "add", "arguments": arguments}))
