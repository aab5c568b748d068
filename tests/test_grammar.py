"""Which schemas are served, which are refused, with what words, and that hostile ones cost little."""

from __future__ import annotations

import contextlib
import random
import time
from typing import Any

import pytest

from intaglio.errors import GrammarError
from intaglio.grammar import (
    MAX_GRAMMAR_BYTES,
    MAX_SCHEMA_BYTES,
    check_grammar,
    json_object_grammar,
    json_schema_grammar,
)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubling(keyword: str, depth: int) -> dict[str, Any]:
    """Each definition names the next one twice."""
    definitions: dict[str, Any] = {
        f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(depth)
    }
    return {"allOf": [{"$ref": "#/$defs/d0"}, {"type": "object"}], "$defs": definitions | {f"d{depth}": {}}}


def same_in_many_ways(count: int) -> dict[str, Any]:
    """`count` alternatives, each with `count` alternatives, all of which begin alike."""
    return {
        "anyOf": [{"$ref": "#/$defs/x"}] * count,
        "$defs": {"x": {"anyOf": [{"$ref": "#/$defs/y"}] * count}, "y": {"properties": {"q": {"$ref": "#/$defs/x"}}}},
    }


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "format": "email"},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "maxItems": 5},
        "score": {"type": "number", "multipleOf": 0.01},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}

SERVED: dict[str, Any] = {
    "a person": PERSON,
    "true": True,
    "no keyword": {},
    "keywords that say nothing of the form": {"title": "t", "description": "d", "default": 1},
    "zod's dialect": {"$schema": "http://json-schema.org/draft-07/schema#", **PERSON},
    "today's dialect": {"$schema": "https://json-schema.org/draft/2020-12/schema", **PERSON},
    "a tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"value": {"type": "integer"}, "left": {"$ref": "#/$defs/node"}},
                "required": ["value"],
            }
        },
    },
    "oneOf that excludes itself": {
        "oneOf": [{"properties": {"k": {"const": k}}, "required": ["k"], "type": "object"} for k in "ab"]
    },
    "500 optional properties": {"type": "object", "properties": {f"field_{i}": {"type": "string"} for i in range(500)}},
    "a union of 100 kinds": {
        "anyOf": [{"type": "object", "properties": {"k": {"const": i}}, "required": ["k"]} for i in range(100)]
    },
    "an enum of 2000": {"enum": [f"value {i}" for i in range(2000)]},
    "fourty levels": nested(40),
    "a description that looks like Lark": {"type": "string", "description": '"} %json start: "x"\n rule: %json {'},
}


@pytest.mark.parametrize("schema", SERVED.values(), ids=SERVED.keys())
def test_a_usual_schema_is_accepted(schema: Any) -> None:
    check_grammar(json_schema_grammar(schema))


def test_the_schema_of_any_object_is_accepted() -> None:
    check_grammar(json_object_grammar())


REFUSED: dict[str, tuple[Any, str]] = {
    "not a schema": ([1], "an object is needed"),
    "false": (False, "an object is needed"),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, '"uniqueItems"'),
    "oneOf whose alternatives leave nothing": ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "allows no text"),
    "an unknown type": ({"type": "text"}, "not valid at #/type"),
    "a look-ahead that nothing satisfies": ({"type": "string", "pattern": "^(?=a)b$"}, "allows no text"),
    "a look-behind": ({"type": "string", "pattern": "(?<=a)b"}, '"pattern"'),
    "a remote reference": ({"$ref": "http://127.0.0.1:9/x.json"}, "127.0.0.1:9"),
    "a reference to itself": ({"$ref": "#"}, "leads back to itself"),
    "references in a circle": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "leads back to itself",
    ),
    "a required property that cannot be": (
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        "allows no text",
    ),
    "leniency smuggled in": (
        {"x-guidance": {"lenient": True}, "type": "array", "items": {"type": "string"}, "uniqueItems": True},
        '"uniqueItems"',
    ),
    "a divisor of seven digits": ({"type": "integer", "multipleOf": 9999991}, "9999991"),
    "divisors that multiply": (
        {"allOf": [{"type": "integer", "multipleOf": 9973}, {"multipleOf": 9967}]},
        "least common multiple",
    ),
    "a divisor larger than any float": ({"type": "integer", "multipleOf": 10**400}, "multipleOf"),
    "a number of more digits than Python writes": (
        {"type": "integer", "minimum": 10**5000},
        "cannot be written as JSON",
    ),
    "alternatives that are compared with each other": (same_in_many_ways(1000), "subschemas"),
    "the same, without a reference": ({"anyOf": [{"anyOf": [{"properties": {"q": {}}}] * 30}] * 50}, "anyOf and oneOf"),
    "the same, behind allOf": (
        {"type": "object", "properties": {"p": {"allOf": [{"$ref": "#/$defs/x"}]}}, **same_in_many_ways(300)},
        "subschemas",
    ),
    "divisors far apart": ({"anyOf": [{"type": "number", "multipleOf": d} for d in (1e-300, 1e300)]}, "multipleOf"),
    "too many bytes": ({"enum": ["x" * 100] * 700}, f"more than {MAX_SCHEMA_BYTES}"),
    "101 levels": (nested(101), "nested more than"),
    "100000 levels": (nested(100_000), "nested more than"),
    "definitions that double, anyOf": (doubling("anyOf", 24), "cannot be served: "),
    "alternatives that multiply": (
        {
            "allOf": [
                {"anyOf": [{"type": "object", "properties": {f"p{i}_{j}": {"type": "string"}}} for j in range(6)]}
                for i in range(8)
            ]
        },
        "cannot be served: ",
    ),
    "patterns whose intersection explodes": (
        {"allOf": [{"type": "string", "pattern": f"(.*a.{{{10 + i}}}b.*)"} for i in range(10)]},
        "cannot be served: ",
    ),
}


@pytest.mark.parametrize(("schema", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_an_unsupported_schema_is_refused_with_the_keyword(schema: Any, words: str) -> None:
    with pytest.raises(GrammarError) as caught:
        json_schema_grammar(schema)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


HOSTILE: dict[str, Any] = {
    "a length of a thousand million": {"type": "string", "minLength": 10**9},
    "an array of a thousand million": {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
    "arrays of arrays": {"type": "array", "minItems": 999, "items": {"type": "array", "minItems": 999, "items": {}}},
    "repeated repetition": {"type": "string", "pattern": "^(a{1,1000}){1,1000}$"},
    "optional letters": {"type": "string", "pattern": "^" + "(a?)" * 500 + "a" * 500 + "$"},
    "a far look back": {"type": "string", "pattern": "(.*a.{50}){3}"},
    "long words": {"enum": ["".join(random.Random(i).choices("abcdef", k=30)) for i in range(1500)]},
    "a doubling type": doubling("allOf", 24),
    "many ways to the same": same_in_many_ways(99),
    **{name: schema for name, (schema, _) in REFUSED.items()},
}


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_schema_takes_little_time_and_memory(schema: Any) -> None:
    began = time.thread_time()
    with contextlib.suppress(GrammarError):
        json_schema_grammar(schema)
    assert time.thread_time() - began < 1.5


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        ("", "cannot be served: "),
        ("start: other", "cannot be served: "),
        ('foo: "x"', "cannot be served: "),
        ("start: /(/", "cannot be served: "),
        ('start: %json {"multipleOf": 9999991}', "9999991"),
        ("start: %json " + '{"items":' * 3000 + "{}" + "}" * 3000, "nested more than"),
        ('start: "' + "x" * MAX_GRAMMAR_BYTES + '"', "bytes"),
    ],
)
def test_a_bad_grammar_is_refused(grammar: str, words: str) -> None:
    with pytest.raises(GrammarError, match=words):
        check_grammar(grammar)
