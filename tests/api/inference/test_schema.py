from __future__ import annotations

import time
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.api.inference import schema as schema_module
from intaglio.api.inference.schema import RunSchema
from intaglio.errors import BadInputError

SCHEMA = RunSchema()
HI = [{"role": "user", "content": "Hi"}]


# Left: a body. Right: what is said of it.
SENTENCES: list[tuple[Any, str]] = [
    ({}, "prompt or messages is missing"),
    ({"prompt": "a", "messages": HI}, "prompt and messages are both given; send one of them"),
    ({"prompt": ""}, "prompt is empty; at least 1 character is needed"),
    ({"prompt": "a", "temperature": 9}, "temperature is 9, more than 5"),
    ({"prompt": "a", "temperature": -0.1}, "temperature is -0.1, less than 0"),
    ({"prompt": "a", "temperature": "0.5"}, "temperature is \"0.5\"; a number is needed"),
    ({"prompt": "a", "temperature": None}, "temperature is null; a number is needed"),
    ({"prompt": "a", "top_k": 0}, "top_k is 0, less than 1"),
    ({"prompt": "a", "top_k": 51}, "top_k is 51, more than 50"),
    ({"prompt": "a", "top_k": 2.5}, "top_k is 2.5; an integer is needed"),
    ({"prompt": "a", "top_p": 2.1}, "top_p is 2.1, more than 2"),
    ({"prompt": "a", "seed": 0}, "seed is 0, less than 1"),
    ({"prompt": "a", "seed": 10**10}, "seed is 10000000000, more than 9999999999"),
    ({"prompt": "a", "seed": 10**30}, "seed is 1000000000000000000000000000000, more than 9999999999"),
    ({"prompt": "a", "max_tokens": -1}, "max_tokens is -1, less than 0"),
    ({"prompt": "a", "max_tokens": True}, "max_tokens is true; an integer is needed"),
    ({"prompt": "a", "lora": 7}, "lora is 7; a string or a list is needed"),
    ({"messages": HI, "lora": []}, "lora is empty; at least 1 item is needed"),
    ({"messages": HI, "lora": ["a"] * 9}, "lora has 9 items, more than 8"),
    ({"prompt": "a", "lora": ["a", 7]}, "lora[1] is 7; a string or an object is needed"),
    ({"prompt": "a", "lora": ["a", {"name": 7}]}, "lora[1].name is 7; a string is needed"),
    ({"prompt": "a", "lora": [{"scale": 1}]}, "lora[0].name is missing"),
    ({"prompt": "a", "lora": ["a", {"name": "b", "scale": 10.5}]}, "lora[1].scale is 10.5, more than 10"),
    ({"prompt": "a", "lora": [{"name": "b", "scale": -11}]}, "lora[0].scale is -11, less than -10"),
    ({"prompt": "a", "lora": [{"name": "b", "scale": "1"}]}, "lora[0].scale is \"1\"; a number is needed"),
    ({"prompt": "a", "lora": [{"name": "b", "scale": None}]}, "lora[0].scale is null; a number is needed"),
    ({"prompt": "a", "lora": [{"name": "b", "scael": 1}]}, "lora[0].scael is not known; did you mean scale?"),
    ({"prompt": "a", "repetition_penalty": 2.01}, "repetition_penalty is 2.01, more than 2"),
    ({"prompt": "a", "frequency_penalty": -2.5}, "frequency_penalty is -2.5, less than -2"),
    ({"messages": HI, "presence_penalty": 3}, "presence_penalty is 3, more than 2"),
    ({"prompt": "a", "response_format": {}}, "response_format.type is missing"),
    ({"prompt": "a", "response_format": {"type": "xml"}},
     'response_format.type is "xml"; one of "json_object", "json_schema", "text" is needed'),
    ({"messages": HI, "guided_json": "{}"}, "guided_json is \"{}\"; an object is needed"),
    ({"messages": HI, "tools": {}}, "tools is {}; a list is needed"),
    ({"messages": HI, "functions": [{"name": "a"}]}, "functions[0].code is missing"),
    ({"messages": [{"role": "user"}]}, "messages[0].content is missing"),
    ({"messages": [*HI, {"role": "user", "content": 3}]},
     "messages[1].content is 3; a string or a list is needed"),
    ({"messages": {}}, "messages is {}; a list is needed"),
    ({"prompt": "a", "stop": [""]}, "stop[0] is empty; at least 1 character is needed"),
    ({"prompt": "a", "stop": "a" * 1025}, "stop has 1025 characters, more than 1024"),
    ({"prompt": "a", "stop": ["a", "a" * 1025]}, "stop[1] has 1025 characters, more than 1024"),
    ({"prompt": "a", "stop": ["a"] * 17}, "stop has 17 items, more than 16"),
    ({"messages": HI, "tools": [{"description": "a"}]}, "tools[0].name is missing"),
    ({"prompt": "a", "tools": [{"name": "a"}, {"type": "function"}]}, "tools[1].function is missing"),
    (["prompt"], 'the body is ["prompt"]; a JSON object is needed'),
    ("prompt", 'the body is "prompt"; a JSON object is needed'),
    (None, "the body is null; a JSON object is needed"),
    ({"promt": "a"}, "promt is not known; did you mean prompt?"),
    ({"massages": HI}, "massages is not known; did you mean messages?"),
    ({"messages": [{"rol": "user", "content": "a"}]},
     "messages[0].role is missing; messages[0].rol is not known, did you mean role?"),
    ({"messages": [*HI, *HI, {"role": 5, "content": "a"}]}, "messages[2].role is 5; a string is needed"),
    ({"prompt": "a", "response_format": {"type": "json_objet"}}, 'response_format.type is "json_objet"; one of '
     '"json_object", "json_schema", "text" is needed; did you mean "json_object"?'),
    ({"prompt": "a", "temperature": "x" * 10**6},
     f'temperature is "{"x" * 59}... (1000000 characters); a number is needed'),
    ({"prompt": "a", "seed": 10**400}, f"seed is 1{'0' * 59}..., more than 9999999999"),
    ({"prompt": ["a"] * 10**5},
     'prompt is [' + '"a", ' * 11 + '"a",... (100000 items); a string is needed'),
]  # fmt: skip

ACCEPTED: list[dict[str, Any]] = [
    {"prompt": "a", "max_tokens": 0},
    {"prompt": "a" * 200_000},
    {"prompt": "a", "top_p": 2, "temperature": 5, "top_k": 50, "seed": 9_999_999_999},
    {"prompt": "a", "max_tokens": 5.0},
    {"messages": []},
    {"messages": HI, "stop": None},
    {"prompt": "a", "stop": "a" * 1024},
    {"messages": HI, "stop": ["a", "b"], "raw": False, "lora": "x"},
    {"messages": HI, "lora": ["x", {"name": "y"}, {"name": "z", "scale": -0.5}]},
    {"prompt": "a", "lora": [{"name": "x", "scale": 10}] * 8},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
    {"messages": [{"role": "assistant", "content": None}]},
    {"messages": [*HI, {"role": "tool", "content": {"t": 21}}, {"role": "tool", "content": [1]}]},
    {"prompt": "a", "nobody_knows": {"this": ["key"]}, "n": 3},
    {"prompt": "a", "frequency_penalty": -2, "presence_penalty": -0.5},
    {"messages": HI, "tools": [{"name": "a"}], "tool_choice": "auto"},
    {
        "messages": HI,
        "tools": [{"type": "function", "function": {"name": "a", "parameters": None}}],
        "tool_choice": {"type": "function", "function": {"name": "a"}},
    },
    {"messages": HI, "tools": [{"name": "a", "type": "function", "function": {"name": "a"}}]},
    {"messages": HI, "functions": [{"name": "a", "code": "() => 1"}]},
    {"prompt": "a", "response_format": {"type": "json_schema"}},
    {"prompt": "a", "guided_json": {}},
]


@pytest.mark.parametrize(("body", "text"), SENTENCES)
def test_a_refusal_is_one_sentence_with_the_field_its_value_and_the_bound(body: Any, text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        SCHEMA.check(body)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("body", "reasons"),
    [
        ({"prompt": "a", "top_k": 0}, "top_k is 0, less than 1"),
        ({"messages": [{"role": "user"}]}, "messages[0].content is missing"),
        ({"messages": HI, "prompt": 7, "top_k": 0}, "prompt is 7; a string is needed"),
    ],
)
def test_the_form_that_was_not_meant_says_nothing(body: Any, reasons: str) -> None:
    with pytest.raises(BadInputError) as caught:
        SCHEMA.check(body)
    assert str(caught.value) == reasons


@pytest.mark.parametrize("body", [{"messages": [1] * 500_000}, {"prompt": "a", "tools": [{}] * 100_000}])
def test_a_body_with_very_many_faults_is_refused_at_the_first(body: dict[str, Any]) -> None:
    began = time.process_time()
    with pytest.raises(BadInputError, match=r"tools\[0\]\.name is missing|messages\[0\] is 1"):
        SCHEMA.check(body)
    assert time.process_time() - began < 1  # to list them all took five seconds and a gigabyte


@pytest.mark.parametrize("body", ACCEPTED)
def test_inputs_of_known_clients_are_accepted(body: dict[str, Any]) -> None:
    SCHEMA.check(body)


def test_the_schema_in_the_catalogue_is_the_one_that_checks() -> None:
    served = jsonschema_rs.Draft202012Validator(SCHEMA.input)
    assert all(served.is_valid(body) for body in ACCEPTED)
    assert not any(served.is_valid(body) for body, _ in SENTENCES)


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(0, 60), st.floats(-3, 6), st.text(max_size=3), st.just(HI), st.just([])
)
# Fields that the published schema does not know have a type here and none there.
_NEW = {"stop", "tool_choice", "response_format", "guided_json"}
_FIELDS = sorted({name for form in SCHEMA.input["oneOf"] for name in form["properties"]} - _NEW)
_MEANT_IN_BOTH = {"prompt": {"tools", "functions"}, "messages": {"raw", "lora"}}


@given(st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=5))
def test_inputs_that_the_published_schema_allows_are_accepted(body: dict[str, Any]) -> None:
    folder = schema_module.resources.files("intaglio.api") / "schemas"
    published = jsonschema_rs.Draft202012Validator(
        msgspec.json.decode((folder / "gemma-7b-it-lora.input.json").read_bytes())
    )
    # What is published for one form alone is declared for the other too, and there has a type.
    if published.is_valid(body) and not any(
        form in body and names & body.keys() for form, names in _MEANT_IN_BOTH.items()
    ):
        SCHEMA.check(body)
