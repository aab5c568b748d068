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


# Left: a body. Right: what the service's own validator says of it.
SERVICE_TEXTS: list[tuple[Any, str]] = [
    ({}, "oneOf at '/' not met, 0 matches: required properties at '/' are 'prompt', "
         "required properties at '/' are 'messages'"),
    ({"prompt": "a", "messages": HI}, "oneOf at '/' not met, 2 matches"),
    ({"prompt": ""}, "Length of '/prompt' must be >= 1 not met"),
    ({"prompt": "a", "temperature": 9}, "'/temperature' must be <= 5"),
    ({"prompt": "a", "temperature": -0.1}, "'/temperature' must be >= 0"),
    ({"prompt": "a", "temperature": "0.5"}, "Type mismatch of '/temperature', 'number' not in 'string'"),
    ({"prompt": "a", "temperature": None}, "Type mismatch of '/temperature', 'number' not in 'null'"),
    ({"prompt": "a", "top_k": 0}, "'/top_k' must be >= 1"),
    ({"prompt": "a", "top_k": 51}, "'/top_k' must be <= 50"),
    ({"prompt": "a", "top_k": 2.5}, "Type mismatch of '/top_k', 'integer' not in 'number'"),
    ({"prompt": "a", "top_p": 2.1}, "'/top_p' must be <= 2"),
    ({"prompt": "a", "seed": 0}, "'/seed' must be >= 1"),
    ({"prompt": "a", "seed": 10**10}, "'/seed' must be <= 9999999999"),
    ({"prompt": "a", "seed": 10**30}, "'/seed' must be <= 9999999999"),
    ({"prompt": "a", "max_tokens": -1}, "'/max_tokens' must be >= 0"),
    ({"prompt": "a", "max_tokens": True}, "Type mismatch of '/max_tokens', 'integer' not in 'boolean'"),
    ({"prompt": "a", "lora": 7}, "Type mismatch of '/lora', 'string,array' not in 'integer'"),
    ({"messages": HI, "lora": []}, "Number of items of '/lora' must be >= 1 not met"),
    ({"messages": HI, "lora": ["a"] * 9}, "Number of items of '/lora' must be <= 8 not met"),
    ({"prompt": "a", "lora": ["a", 7]}, "Type mismatch of '/lora/1', 'string,object' not in 'integer'"),
    ({"prompt": "a", "lora": ["a", {"name": 7}]}, "Type mismatch of '/lora/1/name', 'string' not in 'integer'"),
    ({"prompt": "a", "lora": [{"scale": 1}]}, "required properties at '/lora/0' are 'name'"),
    ({"prompt": "a", "lora": ["a", {"name": "b", "scale": 10.5}]}, "'/lora/1/scale' must be <= 10"),
    ({"prompt": "a", "lora": [{"name": "b", "scale": -11}]}, "'/lora/0/scale' must be >= -10"),
    ({"prompt": "a", "lora": [{"name": "b", "scale": "1"}]}, "of '/lora/0/scale', 'number' not in 'string'"),
    ({"prompt": "a", "lora": [{"name": "b", "scale": None}]}, "of '/lora/0/scale', 'number' not in 'null'"),
    ({"prompt": "a", "lora": [{"name": "b", "scael": 1}]}, "'/lora/0' has an unknown property 'scael'; known"),
    ({"prompt": "a", "repetition_penalty": 2.01}, "'/repetition_penalty' must be <= 2"),
    ({"prompt": "a", "frequency_penalty": -2.5}, "'/frequency_penalty' must be >= -2"),
    ({"messages": HI, "presence_penalty": 3}, "'/presence_penalty' must be <= 2"),
    ({"prompt": "a", "response_format": {}}, "required properties at '/response_format' are 'type'"),
    ({"prompt": "a", "response_format": {"type": "xml"}},
     "enum xml not in json_object,json_schema,text at '/response_format/type'"),
    ({"messages": HI, "guided_json": "{}"}, "Type mismatch of '/guided_json', 'object' not in 'string'"),
    ({"messages": HI, "tools": {}}, "Type mismatch of '/tools', 'array' not in 'object'"),
    ({"messages": HI, "functions": [{"name": "a"}]}, "required properties at '/functions/0' are 'name,code'"),
    ({"messages": [{"role": "user"}]}, "required properties at '/messages/0' are 'role,content'"),
    ({"messages": [*HI, {"role": "user", "content": 3}]},
     "Type mismatch of '/messages/1/content', 'string,array,null' not in 'integer'"),
    ({"messages": {}}, "Type mismatch of '/messages', 'array' not in 'object'"),
    ({"prompt": "a", "stop": [""]}, "Length of '/stop/0' must be >= 1 not met"),
    ({"prompt": "a", "stop": "a" * 1025}, "Length of '/stop' must be <= 1024 not met"),
    ({"prompt": "a", "stop": ["a", "a" * 1025]}, "Length of '/stop/1' must be <= 1024 not met"),
    ({"prompt": "a", "stop": ["a"] * 17}, "Number of items of '/stop' must be <= 16 not met"),
    ({"messages": HI, "tools": [{"description": "a"}]}, "anyOf at '/tools/0' not met"),
    ({"prompt": "a", "tools": [{"name": "a"}, {"type": "function"}]}, "anyOf at '/tools/1' not met"),
    (["prompt"], "Type mismatch of '/', 'object' not in 'array'"),
    ("prompt", "Type mismatch of '/', 'object' not in 'string'"),
    (None, "Type mismatch of '/', 'object' not in 'null'"),
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


@pytest.mark.parametrize(("body", "text"), SERVICE_TEXTS)
def test_schema_errors_have_the_wording_of_the_service(body: Any, text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        SCHEMA.check(body)
    assert text in str(caught.value)
    if isinstance(body, dict) and body and "2 matches" not in text:
        assert str(caught.value).startswith("oneOf at '/' not met, 0 matches: ")


@pytest.mark.parametrize(
    ("body", "reasons"),
    [
        ({"prompt": "a", "top_k": 0}, "'/top_k' must be >= 1"),
        ({"messages": [{"role": "user"}]}, "required properties at '/messages/0' are 'role,content'"),
        ({"messages": HI, "prompt": 7, "top_k": 0}, "'/prompt', 'string' not in 'integer', '/top_k' must be >= 1"),
    ],
)
def test_the_form_that_was_not_meant_says_nothing(body: Any, reasons: str) -> None:
    with pytest.raises(BadInputError) as caught:
        SCHEMA.check(body)
    found = str(caught.value).removeprefix("oneOf at '/' not met, 0 matches: ").removeprefix("Type mismatch of ")
    assert found == reasons


@pytest.mark.parametrize("body", [{"messages": [1] * 500_000}, {"prompt": "a", "tools": [{}] * 100_000}])
def test_a_body_with_very_many_faults_is_refused_at_the_first(body: dict[str, Any]) -> None:
    began = time.process_time()
    with pytest.raises(BadInputError, match=r"at '/tools/0' not met|of '/messages/0'"):
        SCHEMA.check(body)
    assert time.process_time() - began < 1  # to list them all took five seconds and a gigabyte


@pytest.mark.parametrize("body", ACCEPTED)
def test_inputs_of_known_clients_are_accepted(body: dict[str, Any]) -> None:
    SCHEMA.check(body)


def test_the_schema_in_the_catalogue_is_the_one_that_checks() -> None:
    served = jsonschema_rs.Draft202012Validator(SCHEMA.input)
    assert all(served.is_valid(body) for body in ACCEPTED)
    assert not any(served.is_valid(body) for body, _ in SERVICE_TEXTS)


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
