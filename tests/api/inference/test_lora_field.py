"""Which adapters a request names, in each of the ways to write it."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.api.inference.lora_field import LORA_SCHEMA, lora_fields, names_same_adapters, read_lora, with_lora
from intaglio.errors import BadInputError

ACCEPTS = jsonschema_rs.Draft202012Validator(LORA_SCHEMA)
_SCALES = st.one_of(st.integers(-10, 10), st.floats(-10, 10))
_ITEMS = st.one_of(
    st.text(max_size=3),
    st.fixed_dictionaries({"name": st.text(max_size=3)}, optional={"scale": _SCALES}),
)
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["name", "scale"]), inner)),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("lora", "adapters"),
    [
        (None, ()),
        ("a", (("a", 1),)),
        (["a"], (("a", 1),)),
        ([{"name": "a"}], (("a", 1),)),
        ([{"name": "a", "scale": 0.7}, "b", {"name": "c", "scale": 0}], (("a", 0.7), ("b", 1), ("c", 0))),
        (["b", "a"], (("b", 1), ("a", 1))),
    ],
)
def test_a_name_or_a_list_of_names_with_scales_is_read(lora: Any, adapters: tuple[tuple[str, float], ...]) -> None:
    assert lora is None or ACCEPTS.is_valid(lora)
    assert read_lora(lora) == adapters


def test_an_adapter_listed_twice_is_refused_with_both_positions() -> None:
    with pytest.raises(BadInputError, match=r"lora\[2\].*'a'.*lora\[0\]"):
        read_lora(["a", "b", {"name": "a", "scale": 0.5}])


@given(st.lists(_ITEMS, min_size=1, max_size=8))
def test_values_that_the_schema_accepts_are_read_unless_an_adapter_is_named_twice(lora: list[Any]) -> None:
    assert ACCEPTS.is_valid(lora)
    names = [one if isinstance(one, str) else one["name"] for one in lora]
    if len(set(names)) < len(names):
        with pytest.raises(BadInputError, match="already"):
            read_lora(lora)
    else:
        assert [adapter.name for adapter in read_lora(lora)] == names


@given(_JSON, _JSON)
def test_any_two_values_can_be_compared(one: Any, other: Any) -> None:
    assert names_same_adapters(one, one)
    assert names_same_adapters(one, other) == names_same_adapters(other, one)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a", [{"name": "a", "scale": 1}], True),
        (["a", "b"], ["b", {"name": "a"}], True),
        ("a", [{"name": "a", "scale": 0.5}], False),
        ("a", ["a", "b"], False),
        (["a"], [["a"]], False),
        ([{"name": "a"}], [{"scale": 1}], False),
    ],
)
def test_two_lora_fields_are_equal_if_they_name_the_same_adapters_and_scales(one: Any, other: Any, same: bool) -> None:
    body = {"lora": one, "options": {"lora": other}}
    if same:
        assert with_lora(body, {})["lora"] == one
    else:
        with pytest.raises(BadInputError, match=r"lora.*body, options and query"):
            with_lora(body, {})


def test_a_refusal_quotes_at_most_a_short_part_of_a_value() -> None:
    with pytest.raises(BadInputError) as refused:
        lora_fields({"lora": "x" * 10_000}, {"lora": "y"})
    assert len(str(refused.value)) < 500
