"""Schemas as pydantic, zod and OpenAPI tools write them: each is served, and random answers all satisfy it."""

from __future__ import annotations

from typing import Any

import pytest

from intaglio.errors import GrammarError
from intaglio.grammar import json_schema_grammar
from tests.helpers.schema_walks import allows, violations

EMAIL = "^(?!\\.)(?!.*\\.\\.)([A-Za-z0-9_'+\\-\\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\\-]*\\.)+[A-Za-z]{2,}$"


def of_property(schema: dict[str, Any], **definitions: Any) -> dict[str, Any]:
    """An object with the one property p."""
    found = {"type": "object", "properties": {"p": schema}, "required": ["p"], "additionalProperties": False}
    return found | ({"$defs": definitions} if definitions else {})


def tagged(name: str, *, required: bool = True) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"t": {"const": name, "default": name, "type": "string"}}}
    return schema | ({"required": ["t"]} if required else {})


_UNEVALUATED: Any = {
    "type": "object",
    "properties": {"t": {"type": "null"}},
    "unevaluatedProperties": False,
    "$defs": {n: {"properties": {n: {"type": "null"}}, "required": [n]} for n in "ab"},
}


A_OR_B = [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]
MAPPING = {"A": "#/$defs/A", "B": "#/$defs/B"}

# schema, an answer that must be allowed, one that must not
CASES: dict[str, tuple[Any, str, str]] = {
    "oneOf of a reference and null": (
        of_property({"oneOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}, A=tagged("A")),
        '{"p":null}',
        '{"p":1}',
    ),
    "oneOf of two tagged references": (
        of_property({"oneOf": A_OR_B}, A=tagged("A"), B=tagged("B")),
        '{"p":{"t":"B"}}',
        '{"p":{}}',
    ),
    "a discriminator whose tags have defaults": (
        of_property(
            {"discriminator": {"propertyName": "t", "mapping": MAPPING}, "oneOf": A_OR_B},
            A=tagged("A", required=False),
            B=tagged("B", required=False),
        ),
        '{"p":{"t":"A"}}',
        '{"p":{}}',
    ),
    "zod's record": (
        of_property(
            {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "string"}}
        ),
        '{"p":{"a":"b"}}',
        '{"p":{"a":1}}',
    ),
    "zod's email": (
        of_property({"type": "string", "format": "email", "pattern": EMAIL}),
        '{"p":"a.b@c.de"}',
        '{"p":"a..b@c.de"}',
    ),
    "a password": (
        of_property({"type": "string", "pattern": "^(?=.*[a-z])(?=.*\\d).{4,}$"}),
        '{"p":"abc1"}',
        '{"p":"abcd"}',
    ),
    "a word that is reserved": (
        of_property({"type": "string", "pattern": "^(?!admin$)[a-z]+$"}),
        '{"p":"admins"}',
        '{"p":"admin"}',
    ),
    "not": ({"type": "string", "not": {"enum": ["a", "b"]}}, '"c"', '"a"'),
    "not a type": ({"not": {"type": ["object", "array", "number"]}}, '"c"', "1"),
    "not required": (
        {
            "type": "object",
            "properties": {"a": {}, "b": {}},
            "not": {"required": ["a", "b"]},
            "additionalProperties": False,
        },
        '{"a":1}',
        '{"a":1,"b":1}',
    ),
    "if, then and else": (
        {
            "type": "object",
            "properties": {"k": {"enum": ["card", "cash"]}, "n": {"type": "string", "pattern": "^[0-9]+$"}},
            "required": ["k"],
            "additionalProperties": False,
            "if": {"properties": {"k": {"const": "card"}}},
            "then": {"required": ["n"]},
        },
        '{"k":"card","n":"12"}',
        '{"k":"card"}',
    ),
    "unique values of an enum": (
        {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True},
        '["c","a"]',
        '["a","a"]',
    ),
    "contains": ({"type": "array", "items": {"type": "integer"}, "contains": {"minimum": 9}}, "[1,9]", "[1,2]"),
    "at least one of the properties": (
        {
            "type": "object",
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
            "minProperties": 1,
            "additionalProperties": False,
        },
        '{"b":null}',
        "{}",
    ),
    "at most one of the properties": (
        {
            "type": "object",
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
            "maxProperties": 1,
            "additionalProperties": False,
        },
        "{}",
        '{"a":null,"b":null}',
    ),
    "patterns of names that overlap": (
        {
            "type": "object",
            "patternProperties": {"^a": {"type": "integer"}, "b$": {"maximum": 5}},
            "additionalProperties": False,
        },
        '{"ax":9,"ab":5,"b":1}',
        '{"ab":6}',
    ),
    "not a property that may be anything": (
        {"type": "object", "not": {"properties": {"a": True, "b": {"const": 1}}}},
        '{"b":2}',
        '{"a":2}',
    ),
    "names from a list": ({"type": "object", "propertyNames": {"enum": ["a", "b"]}}, '{"a":1}', '{"c":1}'),
    "a property that needs another": (
        {
            "type": "object",
            "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
            "dependentRequired": {"a": ["b"]},
            "additionalProperties": False,
        },
        '{"a":null,"b":null}',
        '{"a":null}',
    ),
    "oneOf that overlaps": (
        {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "integer", "maximum": 5}]},
        "6",
        "3",
    ),
    "no further properties over allOf": (
        {
            "allOf": [{"$ref": "#/$defs/base"}],
            "type": "object",
            "properties": {"b": {"type": "null"}},
            "unevaluatedProperties": False,
            "$defs": {"base": {"properties": {"a": {"type": "null"}}}},
        },
        '{"b":null,"a":null}',
        '{"c":null}',
    ),
    "no further properties beside alternatives that may hold together": (
        {**_UNEVALUATED, "anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]},
        '{"t":null,"a":null,"b":null}',
        '{"t":null,"a":null,"c":null}',
    ),
    "the properties of the alternative that holds": (
        {**_UNEVALUATED, "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]},
        '{"t":null,"b":null}',
        '{"t":null}',
    ),
    "further properties of a type beside a condition": (
        {
            **_UNEVALUATED,
            "unevaluatedProperties": {"type": "null"},
            "if": {"properties": {"k": {"const": 1}}, "required": ["k"]},
            "then": {"properties": {"n": {"const": 2}}},
            "else": {"properties": {"k": {"type": "string", "maxLength": 2}}},
        },
        '{"t":null,"k":1,"n":2}',
        '{"t":null,"k":"a","n":2}',
    ),
    "a value of an enum evaluates nothing": (
        {"enum": [{"a": 1}, {}], "unevaluatedProperties": False},
        "{}",
        '{"a":1}',
    ),
    "no further items beside alternatives": (
        {
            "type": "array",
            "prefixItems": [{"type": "null"}],
            "unevaluatedItems": False,
            "anyOf": [{"prefixItems": [True, {"const": 1}]}, {"maxItems": 1}],
        },
        "[null,1]",
        "[null,1,1]",
    ),
    "a recursive schema under allOf": (
        {
            "$ref": "#/$defs/n",
            "$defs": {
                "n": {
                    "allOf": [
                        {"type": "object", "required": ["v"]},
                        {
                            "properties": {"v": {"type": "null"}, "next": {"$ref": "#/$defs/n"}},
                            "additionalProperties": False,
                        },
                    ]
                }
            },
        },
        '{"v":null,"next":{"v":null}}',
        '{"next":{"v":null}}',
    ),
    "anchors and identifiers": (
        {
            "$id": "https://example.com/a",
            "$ref": "b#/$defs/x",
            "$defs": {"r": {"$id": "b", "$defs": {"x": {"$anchor": "y", "type": "null"}}}},
        },
        "null",
        "1",
    ),
    **{
        f"the format {name}": (of_property({"type": "string", "format": name}), '{"p":"-"}', '{"p":1}')
        for name in ("password", "binary", "byte", "path", "url", "uri-reference", "nanoid", "base64", "jwt", "regex")
    },
}


@pytest.mark.parametrize(("schema", "fits", "breaks"), CASES.values(), ids=CASES.keys())
def test_a_schema_as_agents_write_it_is_served_and_enforced(schema: Any, fits: str, breaks: str) -> None:
    grammar = json_schema_grammar(schema)
    assert allows(grammar, fits)
    assert not allows(grammar, breaks)
    made, broken = violations(schema, 4)
    assert made
    assert broken == []


def test_an_escaped_name_is_no_way_around_the_schema_of_a_property() -> None:
    grammar = json_schema_grammar(
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "integer"}}
    )
    assert allows(grammar, '{"b":1}')
    assert not allows(grammar, '{"\\u0061":1}')


@pytest.mark.parametrize("kind", ["integer", "number"])
def test_a_number_without_bounds_has_a_bounded_number_of_digits(kind: str) -> None:
    grammar = json_schema_grammar({"type": kind})
    assert allows(grammar, "123456789012345")
    assert not allows(grammar, "1" * 19)
    assert not allows(grammar, "0." + "3" * 40)
    assert not allows(json_schema_grammar({"type": "object"}), '{"a":' + "1" * 19 + "}")


def test_bounds_that_no_float_holds_are_kept() -> None:
    grammar = json_schema_grammar({"type": "integer", "maximum": 2**63 - 1, "minimum": 2**53 + 1})
    assert not allows(grammar, str(2**53))
    assert allows(grammar, str(2**60))


REFUSED: dict[str, tuple[Any, str]] = {
    "unique strings": (
        {"properties": {"a": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}}},
        '"uniqueItems" at #/properties/a',
    ),
    "a look-behind": ({"items": {"type": "string", "pattern": "(?<!a)b"}}, '"pattern" at #/items'),
    "a back-reference": ({"type": "string", "pattern": "(a)\\1"}, "back-reference"),
    "a look-ahead in a repetition": ({"type": "string", "pattern": "^((?!a)b)+$"}, "inside a repetition"),
    "a look-ahead that explodes": ({"type": "string", "pattern": "^(?!.*a.{30}b)"}, "automaton"),
    "two unnamed properties": ({"type": "object", "minProperties": 2}, '"minProperties" at #'),
    "a negation of what cannot be negated": ({"not": {"multipleOf": 3}}, '"multipleOf" at #/not'),
    "unevaluated beside too many alternatives": (
        {
            "allOf": [{"anyOf": [{"properties": {f"{n}{m}": True}} for m in range(5)]} for n in range(3)],
            "unevaluatedProperties": False,
        },
        '"unevaluatedProperties" at # of the JSON schema cannot be enforced: more than 64 combinations',
    ),
    "unevaluated items that contains may have seen": (
        {"allOf": [{"contains": {"type": "null"}}], "unevaluatedItems": False},
        '"unevaluatedItems" at # of the JSON schema cannot be enforced: it stands beside "contains"',
    ),
    "no value": ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "allows no text"),
    "a reference to itself": ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "leads back to itself"),
    "a number of too many digits": ({"const": 12345678901234567891}, "more digits"),
}


@pytest.mark.parametrize(("schema", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_enforced_is_refused_with_keyword_and_place(schema: Any, words: str) -> None:
    with pytest.raises(GrammarError) as caught:
        json_schema_grammar(schema)
    assert words in str(caught.value)
