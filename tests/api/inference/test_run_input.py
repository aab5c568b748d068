from __future__ import annotations

from typing import Any

import pytest

from intaglio.api.inference.run_input import RunInput, read_run_input
from intaglio.api.inference.schema import RunSchema
from intaglio.errors import BadInputError
from intaglio.request import SamplingParams

SCHEMA = RunSchema()


def read(body: Any, **query: str) -> RunInput:
    return read_run_input(body, query, SCHEMA)


def test_defaults_are_those_of_the_schema() -> None:
    asked = read({"prompt": "Hi"})
    declared = SCHEMA.settings
    assert asked.params == SamplingParams()
    assert asked.params.max_tokens == declared["max_tokens"]["default"] == 256
    assert asked.params.temperature == declared["temperature"]["default"] == 0.6
    assert (asked.raw, asked.stream, asked.adapters, asked.stop, asked.messages) == (False, False, (), (), None)


def test_every_sampling_field_reaches_the_engine() -> None:
    fields = {
        "max_tokens": 7, "temperature": 0.25, "top_p": 0.5, "top_k": 3, "seed": 133, "repetition_penalty": 1.5,
        "frequency_penalty": 0.75, "presence_penalty": 0.125,
    }  # fmt: skip
    params = read({"prompt": "Hi", **fields}).params
    assert {name: getattr(params, name) for name in fields} == fields


def test_penalties_may_be_negative() -> None:
    params = read({"prompt": "Hi", "frequency_penalty": -2, "presence_penalty": -0.5}).params
    assert (params.frequency_penalty, params.presence_penalty) == (-2.0, -0.5)


@pytest.mark.parametrize("name", ["response_format", "guided_json", "tools", "functions", "tool_choice"])
def test_fields_of_structured_output_may_be_null(name: str) -> None:
    asked = read({"prompt": "Hi", name: None})
    assert (asked.json_mode, asked.tools) == (None, None)


def test_fields_of_structured_output_are_not_read_from_the_query() -> None:
    assert read({"prompt": "Hi"}, guided_json="{}", tools="[]").json_mode is None


@pytest.mark.parametrize("place", ["body", "options", "query"])
@pytest.mark.parametrize("form", [{"prompt": "Hi"}, {"messages": []}])
def test_an_adapter_may_be_named_in_three_places(place: str, form: dict[str, Any]) -> None:
    bodies = {"body": {**form, "lora": "x"}, "options": {**form, "options": {"lora": "x"}}, "query": form}
    query = {"lora": "x"} if place == "query" else {}
    assert read(bodies[place], **query).adapters == (("x", 1),)


def test_two_different_adapters_are_refused() -> None:
    with pytest.raises(BadInputError, match="different adapters"):
        read({"prompt": "Hi", "lora": "x"}, lora="y")
    assert read({"prompt": "Hi", "lora": "x"}, lora="x").adapters == (("x", 1),)


def test_query_values_are_read_by_their_declared_type_and_the_body_wins() -> None:
    asked = read({"prompt": "Hi", "top_k": 5}, top_k="9", temperature="0.5", seed="12", raw="true", stream="false")
    assert (asked.params.top_k, asked.params.temperature, asked.params.seed) == (5, 0.5, 12)
    assert asked.raw
    assert not asked.stream


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", "NaN"), ("temperature", "1e999"), ("seed", "1.5"), ("raw", "2"), ("top_k", "")]
)
def test_bad_query_values_are_refused(name: str, value: str) -> None:
    with pytest.raises(BadInputError, match=name):
        read({"prompt": "Hi"}, **{name: value})


@pytest.mark.parametrize("name", ["raw", "stream"])
def test_flags_may_be_words(name: str) -> None:
    assert getattr(read({"prompt": "Hi", name: "true"}), name) is True
    assert getattr(read({"prompt": "Hi", name: "False"}), name) is False
    with pytest.raises(BadInputError, match=f"{name} is "):
        read({"prompt": "Hi", name: "yes"})


def test_null_prompt_messages_and_stop_are_absent() -> None:
    assert read({"prompt": None, "messages": [], "stop": None}).messages == []
    with pytest.raises(BadInputError, match="prompt or messages is missing"):
        read({"prompt": None})


@pytest.mark.parametrize(("stop", "read_as"), [("END", ("END",)), (["a", "b"], ("a", "b")), ([], ()), (None, ())])
def test_stop_is_a_string_or_several(stop: Any, read_as: tuple[str, ...]) -> None:
    assert read({"prompt": "Hi", "stop": stop}).stop == read_as


def test_a_number_of_300_digits_is_refused_by_field() -> None:
    with pytest.raises(BadInputError, match="max_tokens"):
        read({"prompt": "Hi", "max_tokens": 10**300})
