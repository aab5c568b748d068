"""Schemas drawn at random: each is refused by name, or no answer breaks it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from intaglio.errors import GrammarError
from tests.helpers.schema_walks import violations

_KEYWORDS: dict[str, list[Any]] = {
    "type": ["object", "string", "integer", "number", "array", ["string", "null"], ["integer", "object"]],
    "enum": [["a", "b"], [1, 2.5, "a"], [None, True], [{"a": 1}, [1]]],
    "minimum": [0, -3.5], "exclusiveMaximum": [10, 7.5], "multipleOf": [3, 0.5],
    "minLength": [1, 2], "maxLength": [3], "pattern": ["^a+$", "b", "^(?!b)[ab]*$", "(?=.*a)"],
    "required": [["a"], ["a", "b"]], "minProperties": [1], "maxProperties": [1, 2],
    "minItems": [1, 2], "maxItems": [2, 3], "uniqueItems": [True],
}  # fmt: skip
_OF_ONE = (
    "items", "additionalProperties", "not", "contains", "if", "then", "else", "propertyNames", "unevaluatedProperties",
    "unevaluatedItems",
)  # fmt: skip
_OF_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_OF_NAMED = {"properties": ["a", "b", "c"], "patternProperties": ["^a", "b$"], "dependentSchemas": ["a"]}


def drawn(chance: random.Random, depth: int) -> Any:
    if depth == 0 or chance.random() < 0.1:
        return chance.choice([True, {"type": "integer"}, {"type": "string"}, {"const": "a"}, {"$ref": "#/$defs/d"}])
    schema: dict[str, Any] = {}
    for _ in range(chance.randint(1, 3)):
        kind = chance.random()
        if kind < 0.5:
            name = chance.choice(list(_KEYWORDS))
            schema[name] = chance.choice(_KEYWORDS[name])
        elif kind < 0.65:
            schema[chance.choice(_OF_ONE)] = drawn(chance, depth - 1)
        elif kind < 0.8:
            schema[chance.choice(_OF_SEVERAL)] = [drawn(chance, depth - 1) for _ in range(chance.randint(1, 3))]
        else:
            keyword = chance.choice(list(_OF_NAMED))
            schema[keyword] = {name: drawn(chance, depth - 1) for name in _OF_NAMED[keyword] if chance.random() < 0.8}
    return schema


def check(seeds: range) -> tuple[int, int]:
    """How many of the schemas are served, and how many answers they were checked with."""
    served, checked = 0, 0
    for seed in seeds:
        chance = random.Random(seed)
        schema = {
            "type": chance.choice(["object", "array", ["object", "string"]]),
            "properties": {"a": drawn(chance, 2)},
        }
        schema |= {"allOf": [drawn(chance, 2)], "$defs": {"d": {"type": ["string", "null"], "maxLength": 3}}}
        if chance.random() < 0.3:
            schema |= {chance.choice(_OF_ONE[-2:]): chance.choice([False, {"type": "integer"}])}
        try:
            made, broken = violations(schema, 3, seed)
        except GrammarError:
            continue
        assert broken == [], (seed, schema, broken)
        served, checked = served + 1, checked + made
    return served, checked


def test_no_answer_breaks_a_schema_drawn_at_random() -> None:
    served, checked = check(range(60))
    assert served > 20
    assert checked > served


@pytest.mark.slow
def test_no_answer_breaks_one_of_many_schemas_drawn_at_random() -> None:
    assert check(range(1_000, 3_000))[0] > 800
