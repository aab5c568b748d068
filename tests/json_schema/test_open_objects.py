"""Properties that a schema says nothing of: none come beside a list of properties, any come without one."""

from __future__ import annotations

from typing import Any

import pytest

from intaglio.grammar import json_schema_grammar
from tests.helpers.schema_walks import allows, violations

NULL = {"type": "null"}
LISTED = {"type": "object", "properties": {"a": NULL}}

# schema, whether another property may come
CASES: dict[str, tuple[Any, bool]] = {
    "a list": (LISTED, False),
    "a list, in a property": ({"type": "object", "properties": {"a": NULL}, "required": ["a"]}, False),
    "a list and true": ({**LISTED, "additionalProperties": True}, True),
    "a list and a schema": ({**LISTED, "additionalProperties": NULL}, True),
    "a list and names": ({**LISTED, "propertyNames": {"pattern": "^[ab]$"}}, True),
    "a list and patterns": ({**LISTED, "patternProperties": {"^b$": NULL}}, True),
    "a list of which one must come": ({**LISTED, "minProperties": 1}, False),
    "no list": ({"type": "object"}, True),
    "an empty list": ({"type": "object", "properties": {}}, True),
    "required names alone": ({"type": "object", "required": ["a"]}, True),
    "a forbidden name": ({"type": "object", "not": {"required": ["c"]}}, True),
    "a list, and one that is open": ({"allOf": [LISTED, {"additionalProperties": True}]}, True),
}


@pytest.mark.parametrize(("schema", "is_open"), CASES.values(), ids=CASES.keys())
def test_only_a_list_of_properties_leaves_others_out(schema: Any, is_open: bool) -> None:
    grammar = json_schema_grammar(schema)
    assert allows(grammar, '{"a":null,"b":null}') == is_open
    made, broken = violations(schema, 4)
    assert made
    assert broken == []


def test_the_lists_of_all_parts_count_together() -> None:
    grammar = json_schema_grammar({"allOf": [LISTED, {"properties": {"b": NULL}}]})
    assert allows(grammar, '{"a":null,"b":null}')
    assert not allows(grammar, '{"a":null,"c":null}')
