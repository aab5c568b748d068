from __future__ import annotations

import json
from typing import Any

import llguidance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.text.tool_calls import CallHold, begins_call, parse_tool_calls, tool_grammar
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
    """Whether the grammar allows the text as a whole answer. One token per byte."""
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
def test_a_call_of_each_tool_is_in_the_grammar_and_ends_the_answer(call: ToolCall) -> None:
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
def test_plain_answers_stay_possible_unless_a_call_is_required(text: str) -> None:
    assert accepts(tool_grammar(use_of()), text)
    assert not accepts(tool_grammar(use_of(choice="required")), text)
    assert parse_tool_calls(text, use_of()) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "nobody", "parameters": {}}',
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
def test_what_begins_like_a_call_must_be_a_good_one(text: str) -> None:
    assert not accepts(tool_grammar(use_of()), text) or not begins_call(text)
    if text != "[]":  # which is plain text: nobody is called
        assert not accepts(tool_grammar(use_of()), text)


def test_a_named_choice_leaves_that_tool_alone() -> None:
    grammar = tool_grammar(use_of(choice={"type": "function", "function": {"name": "now"}}))
    assert accepts(grammar, call_text([CALLS[2]]))
    assert not accepts(grammar, call_text([CALLS[0]]))
    assert not accepts(grammar, call_text([CALLS[2], CALLS[2]]))


def test_json_may_be_asked_for_where_no_tool_is_called() -> None:
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
    for text in ("Hello", '{"name": "nobody", "parameters": {}}', ""):
        assert not accepts(grammar, text), text


@pytest.mark.parametrize("fence", ["", "```json\n", "```tool_call\n", "```tool_code\n", "```\n"])
def test_calls_are_read_back(fence: str) -> None:
    end = "\n```" if fence else ""
    assert parse_tool_calls(f"{fence}{call_text(CALLS)}{end}", use_of()) == CALLS
    assert parse_tool_calls(f"{fence}{call_text(CALLS[:1])}{end}", use_of()) == CALLS[:1]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "nobody", "parameters": {}}',
        '{"name": "add", "arguments": {"x": 5}}',
        '{"name": "add", "parameters": 5}',
        '[{"name": "add", "parameters": {"x": 5}}, 5]',
        '{"name": ["add"], "parameters": {}}',
        '{"name": "add", "parameters": {"x": 1e999}}',
        '{"name": "add", "parameters": ' + '{"x":' * 5000,
        '{"name": "add", "parameters": {"x": 5}',
    ],
)
def test_what_is_no_call_is_not_read_as_one(text: str) -> None:
    assert begins_call(text)
    assert parse_tool_calls(text, use_of()) is None


def push_all(hold: CallHold, pieces: list[str]) -> str:
    return "".join(hold.push(piece) for piece in pieces)


@given(st.text('[{`json\nxtool_cd "', max_size=16), st.data())
def test_nothing_is_lost_and_no_call_is_given_away_however_the_text_is_cut(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    hold = CallHold()
    given_on = push_all(hold, pieces)
    assert given_on + hold.held == text
    assert not (given_on and hold.held)
    assert hold.held == text or not begins_call(text)


def test_plain_text_is_held_back_for_no_longer_than_it_may_become_a_call() -> None:
    hold = CallHold()
    assert [hold.push(piece) for piece in ("`", "`", "`", "j", "s", "!", "{")] == ["", "", "", "", "", "```js!", "{"]
    hold = CallHold()
    assert [hold.push(piece) for piece in ("[", "1", "]")] == ["", "[1", "]"]
    hold = CallHold()
    assert push_all(hold, list(json.dumps({"name": "x"}))) == ""
    assert hold.held == '{"name": "x"}'
