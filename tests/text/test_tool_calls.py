from __future__ import annotations

import json
from typing import Any

import llguidance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.errors import BadInputError, ChatError
from intaglio.text import fold_messages
from intaglio.text.tool_calls import ToolCallBuffer, begins_call, parse_tool_calls, tool_grammar
from intaglio.text.tools import ToolCall, ToolUse, call_text, parse_tools

NUMBER = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
REFERRED = {
    "type": "object",
    "properties": {"place": {"$ref": "#/$defs/Place"}},
    "required": ["place"],
    "$defs": {"Place": {"type": "string", "enum": ["here", "there"]}},
}
TOOLS = [{"name": "add", "parameters": NUMBER}, {"name": 'o"d\\d é', "parameters": REFERRED}, {"name": "now"}]
CALLS = [ToolCall("add", {"x": 5}), ToolCall('o"d\\d é', {"place": "there"}), ToolCall("now", {})]
PLAIN = [
    "",
    "Hello.",
    "[Link](x)",
    "[1] see below",
    "[",
    "```python\nprint({})\n```",
    "`x`",
    "é {",
    "\n\nHi",
    'a {"name"',
]


def use_of(**named: Any) -> ToolUse:
    use = parse_tools(TOOLS, **named)
    assert use is not None
    return use


def accepts(grammar: str, text: str) -> bool:
    """Whether the grammar allows the text as a whole completion. One token per byte."""
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar)
    assert not matcher.is_error(), matcher.get_error()
    content = list(text.encode())
    return matcher.try_consume_tokens(content) == len(content) and matcher.is_accepting()


def ends(grammar: str, text: str) -> bool:
    """Whether nothing may follow the text."""
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar)
    matcher.try_consume_tokens(list(text.encode()))
    return matcher.is_stopped()


@pytest.mark.parametrize("call", CALLS)
def test_a_call_of_each_tool_is_in_the_grammar_and_ends_the_completion(call: ToolCall) -> None:
    grammar = tool_grammar(use_of())
    text = call_text([call])
    assert accepts(grammar, text)
    assert ends(grammar, text)
    assert accepts(grammar, f"```json\n{text}\n```")
    assert ends(grammar, f"```json\n{text}\n```")


def test_several_calls_are_an_array_unless_the_caller_forbids_it() -> None:
    assert accepts(tool_grammar(use_of()), call_text(CALLS))
    assert not accepts(tool_grammar(use_of(parallel=False)), call_text(CALLS))


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_stays_possible_unless_a_call_is_required(text: str) -> None:
    assert accepts(tool_grammar(use_of()), text)
    assert not accepts(tool_grammar(use_of(choice="required")), text)
    assert parse_tool_calls(text, use_of()) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "other", "parameters": {}}',
        '{"name": "add", "parameters": {}}',
        '{"name": "add", "parameters": {"x": "5"}}',
        '{"name": "add", "parameters": {"x": 5, "y": 6}}',
        '{"name": "add", "parameters": {"x": 5}} there you are',
        '{"answer": 5}',
        ' {"name": "add", "parameters": {"x": 5}}',
        '```json\n{"name": "add"',
        "[]",
        "[{]",
    ],
)
def test_text_that_begins_like_a_call_must_be_a_valid_call(text: str) -> None:
    assert not accepts(tool_grammar(use_of()), text) or not begins_call(text)
    if text != "[]":  # which is plain text: no tool is called
        assert not accepts(tool_grammar(use_of()), text)


def test_a_named_choice_allows_only_that_tool() -> None:
    grammar = tool_grammar(use_of(choice={"type": "function", "function": {"name": "now"}}))
    assert accepts(grammar, call_text([CALLS[2]]))
    assert not accepts(grammar, call_text([CALLS[0]]))
    assert not accepts(grammar, call_text([CALLS[2], CALLS[2]]))


def test_the_text_schema_applies_when_no_tool_is_called() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}, "required": ["n"]}
    grammar = tool_grammar(use_of(), schema)
    for text in (
        '{"name": "added", "n": 1}',
        '{"n": 1}',
        '{"name": "add", "n": 1}',
        call_text(CALLS[:1]),
        call_text(CALLS),
    ):
        assert accepts(grammar, text), text
    for text in ("Hello", '{"name": "other", "parameters": {}}', ""):
        assert not accepts(grammar, text), text


@pytest.mark.parametrize("fence", ["", "```json\n", "```tool_call\n", "```tool_code\n", "```\n"])
def test_calls_are_read_back(fence: str) -> None:
    end = "\n```" if fence else ""
    assert parse_tool_calls(f"{fence}{call_text(CALLS)}{end}", use_of()) == CALLS
    assert parse_tool_calls(f"{fence}{call_text(CALLS[:1])}{end}", use_of()) == CALLS[:1]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "other", "parameters": {}}',
        '{"name": "add", "arguments": {"x": 5}}',
        '{"name": "add", "parameters": 5}',
        '[{"name": "add", "parameters": {"x": 5}}, 5]',
        '{"name": ["add"], "parameters": {}}',
        '{"name": "add", "parameters": {"x": 1e999}}',
        '{"name": "add", "parameters": ' + '{"x":' * 5000,
        '{"name": "add", "parameters": {"x": 5}',
    ],
)
def test_text_that_is_not_a_call_is_not_read_as_one(text: str) -> None:
    assert begins_call(text)
    assert parse_tool_calls(text, use_of()) is None


def push_all(buffer: ToolCallBuffer, pieces: list[str]) -> str:
    return "".join(buffer.push(piece) for piece in pieces)


@given(st.text('[{`json\nxtool_cd "', max_size=16), st.data())
def test_held_and_released_text_is_complete_and_calls_are_held_however_it_is_cut(
    text: str, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    buffer = ToolCallBuffer()
    given_on = push_all(buffer, pieces)
    assert given_on + buffer.held == text
    assert not (given_on and buffer.held)
    assert buffer.held == text or not begins_call(text)


def test_plain_text_is_held_back_for_no_longer_than_it_may_become_a_call() -> None:
    buffer = ToolCallBuffer()
    assert [buffer.push(piece) for piece in ("`", "`", "`", "j", "s", "!", "{")] == ["", "", "", "", "", "```js!", "{"]
    buffer = ToolCallBuffer()
    assert [buffer.push(piece) for piece in ("[", "1", "]")] == ["", "[1", "]"]
    buffer = ToolCallBuffer()
    assert push_all(buffer, list(json.dumps({"name": "x"}))) == ""
    assert buffer.held == '{"name": "x"}'


# -- calls that callers send back with the conversation

FLAT = {"name": "add", "arguments": {"x": 5}}
OPENAI = {"id": "call-1", "type": "function", "function": {"name": "add", "arguments": '{"x": 5}'}}
CALL = '{"name": "add", "parameters": {"x": 5}}'


def texts(*messages: Any) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in fold_messages(messages)]


def called(*calls: Any, content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


@pytest.mark.parametrize("call", [FLAT, OPENAI, {"function": {"name": "add", "arguments": {"x": 5}}}])
def test_a_call_of_an_earlier_turn_is_written_as_the_model_wrote_it(call: Any) -> None:
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


def test_a_result_is_headed_by_the_tools_name_or_by_the_name_in_its_call() -> None:
    assert texts({"role": "tool", "name": "add", "content": "10"}) == [("user", "Result of add:\n10")]
    shown = texts(called(OPENAI), {"role": "tool", "tool_call_id": "call-1", "content": "10"})
    assert shown == [("model", CALL), ("user", "Result of add:\n10")]
    unknown = texts(called(OPENAI), {"role": "tool", "tool_call_id": "call-2", "content": "10"})
    assert unknown == [("model", CALL), ("user", "10")]


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ({"name": "add"}, "tool_calls of message 0 is not an array"),
        (["add"], r"tool_calls\[0\] of message 0 is not an object"),
        ([FLAT, {"arguments": {}}], r"tool_calls\[1\] of message 0 has no name"),
        ([{"function": "add"}], "has no name"),
    ],
)
def test_a_call_that_cannot_be_read_is_named(calls: Any, words: str) -> None:
    with pytest.raises(ChatError, match=words):
        texts({"role": "assistant", "content": None, "tool_calls": calls})


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ('{"city":', '{"city":'),
        ('{"city": "Par', '{"city": "Par'),
        ("{'city': 'Paris'}", "{'city': 'Paris'}"),
        ('{"a":' * 5000, '{"a":' * 5000),
        ([1, "é"], '[1, "é"]}'),
        ("5", "5}"),
        (True, "true}"),
    ],
)
def test_a_call_that_was_cut_or_is_broken_is_shown_as_it_stands(arguments: Any, shown: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "c1", "content": "not run"}
    assert texts(called(call), result, {"role": "user", "content": "go on"}) == [
        ("model", f'{{"name": "f", "parameters": {shown}'),
        ("user", "Result of f:\nnot run\n\ngo on"),
    ]
    assert texts(called(FLAT, call)) == [("model", f'[{CALL}, {{"name": "f", "parameters": {shown}]')]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (None, ""),
        ({"t": 21, "unit": "°C"}, '{"t": 21, "unit": "°C"}'),
        ([1, 2], "[1, 2]"),
        ([{"id": 7}], '[{"id": 7}]'),
        (21.5, "21.5"),
        (False, "false"),
        ([], ""),
        ([{"type": "text", "text": "warm"}, {"type": "text", "text": "dry"}], "warmdry"),
        (
            [{"type": "image_url", "image_url": {"url": "data:,"}}],
            '[{"type": "image_url", "image_url": {"url": "data:,"}}]',
        ),
    ],
)
def test_a_result_may_be_any_json(content: Any, shown: str) -> None:
    assert texts({"role": "tool", "name": "f", "content": content}) == [("user", f"Result of f:\n{shown}")]


def test_results_without_ids_belong_to_the_calls_in_order() -> None:
    first, second = ({"name": name, "arguments": {}} for name in ("first", "second"))
    results = [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}, {"role": "tool", "content": "3"}]
    assert texts(called(first, second), *results)[1:] == [("user", "Result of first:\n1\n\nResult of second:\n2\n\n3")]
    later = [{"role": "tool", "tool_call_id": "b", "content": "2"}, {"role": "tool", "content": "1"}]
    assert texts(called({"id": "a", **first}, {"id": "b", **second}), *later)[1:] == [
        ("user", "Result of second:\n2\n\nResult of first:\n1")
    ]


def test_arguments_nested_too_deeply_are_refused() -> None:
    arguments: dict[str, Any] = {}
    for _ in range(5000):
        arguments = {"a": arguments}
    with pytest.raises(BadInputError, match="nested too deeply"):
        texts(called({"name": "add", "arguments": arguments}))
