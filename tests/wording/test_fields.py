from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from intaglio.wording import fields
from intaglio.wording.similar import misspelt
from intaglio.wording.violations import first_violation

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["text", "image"]},
        "never": {"enum": [None]},
        "names": {"type": "object", "maxProperties": 2},
        "either": {"anyOf": [{"required": ["url"]}, {"required": ["id", "size"]}]},
        "pattern": {"pattern": "^a"},
    },
    "required": ["kind"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("steps", "place"),
    [
        ([], ""),
        (["messages", 2, "role"], "messages[2].role"),
        (["stop-words", "a b"], 'stop-words["a b"]'),
        ([3], "[3]"),
        (["\n"], 'the body["\\n"]'),
    ],
)
def test_a_place_is_written_as_a_program_would_write_it(steps: list[str | int], place: str) -> None:
    assert fields.place_of(steps) == place


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("café", '"café"'),
        (True, "true"),
        (None, "null"),
        ([1, "a"], '[1, "a"]'),
        ("x" * 100, '"' + "x" * 59 + "... (100 characters)"),
        (
            {str(n): n for n in range(99)},
            '{"0": 0, "1": 1, "2": 2, "3": 3, "4": 4, "5": 5, "6": 6, "7"... (99 fields)',
        ),
        (float("nan"), "NaN"),
        ({1, 2}, "{1, 2}"),
    ],
)
def test_a_value_is_shown_as_json_and_cut(value: object, text: str) -> None:
    assert fields.shown(value) == text


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "kind is missing"),
        ({"kid": "text"}, "kind is missing; kid is not known, did you mean kind?"),
        ({"kind": "imag"}, 'kind is "imag"; one of "text", "image" is needed; did you mean "image"?'),
        ({"kind": "text", "never": 1}, "never is 1, which is not supported; leave it out"),
        ({"kind": "text", "names": {"a": 1, "b": 2, "c": 3}}, "names has 3 fields, more than 2"),
        ({"kind": "text", "either": {"size": 3}}, "either.id is missing"),
        ({"kind": "text", "either": {}}, "either.url is missing"),
        ({"kind": "text", "pattern": "b"}, 'pattern is "b", which cannot be used; see docs/http_api.md'),
        ({"kind": "text", "zzz": 1}, "zzz is not known; known: kind, never, names, either, pattern"),
    ],
)
def test_a_violation_is_a_sentence_without_a_word_of_the_schema(body: dict[str, Any], sentence: str) -> None:
    assert first_violation(jsonschema_rs.Draft202012Validator(SCHEMA), SCHEMA, body) == sentence


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("per-page", None),
        ("perpage", "per_page"),
        ("Per_Page", "per_page"),
        ("pag", "page"),
        ("lora", None),
        ("", None),
    ],
)
def test_a_misspelt_name_is_told_from_one_that_means_something_else(name: str, meant: str | None) -> None:
    found = misspelt(name, ["per_page", "page", "search"])
    assert found == ("per_page" if name == "per-page" else meant)
