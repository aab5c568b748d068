"""The playground's fields, made from the schema that the server serves, and what is said of values outside of it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from intaglio.api.inference.schema import RunSchema
from tests.helpers.browser import needs_browser

pytestmark = needs_browser

FIELDS = """async (schema) => {
  const { formFields } = await import("/input_schema.js");
  return Object.fromEntries(formFields(schema).map(({ name, kind }) => [name, kind]));
}"""
READ = """async ([schema, name, typed]) => {
  const { formFields, readTyped } = await import("/input_schema.js");
  return readTyped(formFields(schema).find((field) => field.name === name), typed);
}"""
SCHEMA = RunSchema().input


def read(page: Page, name: str, typed: str) -> dict[str, Any]:
    told: dict[str, Any] = page.evaluate(READ, [SCHEMA, name, typed])
    return told


def test_every_field_of_the_servers_schema_has_an_element(page: Page) -> None:
    kinds = page.evaluate(FIELDS, SCHEMA)
    declared = {name for form in SCHEMA["oneOf"] for name in form["properties"]}
    assert kinds.keys() == declared - {"prompt", "messages", "raw", "stream", "lora"}  # these have places of their own
    assert {kinds[name] for name in ("max_tokens", "temperature", "min_p", "seed")} == {"number"}
    assert (kinds["ignore_eos"], kinds["guided_regex"], kinds["tools"], kinds["stop"]) == (
        "flag",
        "text",
        "json",
        "json",
    )


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("temperature", " 0.5 ", 0.5),
        ("frequency_penalty", "-2", -2),
        ("ignore_eos", "true", True),
        ("guided_regex", " [0-9]+ ", " [0-9]+ "),
        ("stop", "###", "###"),
        ("stop", '["a", "b"]', ["a", "b"]),
        ("tool_choice", "required", "required"),
        ("tools", '[{"name": "f"}]', [{"name": "f"}]),
        ("response_format", '{"type": "json_object"}', {"type": "json_object"}),
    ],
)
def test_a_typed_value_is_read(page: Page, name: str, typed: str, value: object) -> None:
    assert read(page, name, typed) == {"value": value}


def test_an_empty_field_is_left_out(page: Page) -> None:
    assert read(page, "temperature", "  ") == {}


@pytest.mark.parametrize(
    ("name", "typed", "problem"),
    [
        ("temperature", "9", "temperature is 9, more than 5."),
        ("temperature", "-1", "temperature is -1, less than 0."),
        ("temperature", "warm", 'temperature is "warm", not a number.'),
        ("top_k", "2.5", "top_k is 2.5, not a whole number."),
        ("seed", "0", "seed is 0, less than 1."),
        ("stop_token_ids", "[1, -1]", "stop_token_ids[1] is -1, less than 0."),
        ("stop", '["a", ""]', "stop[1] is 0 characters long, less than 1."),
        ("tools", '{"name": "f"}', 'tools is {"name":"f"}, not a list.'),
        ("tools", '[{"description": "x"}]', "tools[0] has no name."),
        ("tools", '[{"type": "function", "function": {}}]', "tools[0].function has no name."),
        ("tools", "[", "tools, line 1, column 2: a value is expected, but the text ends here."),
        ("response_format", '{"type": "xml"}', 'response_format.type is "xml", not json_object, json_schema or text.'),
        ("structured_outputs", '{"shape": 1}', "structured_outputs has shape, which is not one of json, json_object, "),
        ("guided_choice", "[]", "guided_choice has 0 items, less than 1."),
    ],
)
def test_a_value_outside_of_the_schema_is_told_in_one_sentence(page: Page, name: str, typed: str, problem: str) -> None:
    assert read(page, name, typed)["problem"].startswith(problem)
