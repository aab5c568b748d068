"""The JSON schema of a text generation request, and the service's own words for what breaks it.

The published schema of gemma-7b-it-lora (schemas/, as Cloudflare publishes it) is served and used for every model, with
the widenings that later schemas of its siblings or the service's own examples brought:

    prompt, messages[].content   no maximum length: the context window is checked instead
    messages[].content           a string, an array of {type: "text", text}, or null
    raw, lora                    in both forms
    stop                         declared: a string, an array of strings, or null
    max_tokens                   not negative

Everything that the published schema accepts is accepted, but for a negative max_tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from types import MappingProxyType
from typing import Any

import jsonschema_rs
import msgspec

from intaglio.errors import BadInputError

MAX_STOP_STRINGS = 16

_CONTENT_PART = {"type": "object", "properties": {"type": {"type": "string"}, "text": {"type": "string"}}}
_CONTENT = {"type": ["string", "array", "null"], "items": _CONTENT_PART}
_STOP = {
    "type": ["string", "array", "null"],
    "minLength": 1,
    "items": {"type": "string", "minLength": 1},
    "maxItems": MAX_STOP_STRINGS,
}
_CACHED_TOKENS = {"type": "object", "properties": {"cached_tokens": {"type": "number", "default": 0}}}

_WORDS = MappingProxyType({
    "required": "required properties at '{where}' are '{limit}'",
    "type": "Type mismatch of '{where}', '{limit}' not in '{given}'",
    "minimum": "'{where}' must be >= {limit}",
    "maximum": "'{where}' must be <= {limit}",
    "minLength": "Length of '{where}' must be >= {limit} not met",
    "maxItems": "Number of items of '{where}' must be <= {limit} not met",
    "oneOf": "oneOf at '{where}' not met",
})  # fmt: skip


class RunSchema:
    """The input and output schema of text generation, with a checker for the input."""

    def __init__(self) -> None:
        self.input: dict[str, Any] = _widened_input(_published("gemma-7b-it-lora.input.json"))
        self.output: dict[str, Any] = _widened_output(_published("gemma-7b-it-lora.output.json"))
        self._forms: list[dict[str, Any]] = self.input["oneOf"]
        self._validators = [jsonschema_rs.Draft202012Validator(form) for form in self._forms]

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """The scalar fields that may also come as query parameters: name -> its schema."""
        declared = self._forms[0]["properties"]
        return {name: field for name, field in declared.items() if name != "prompt"}

    def check(self, body: object) -> None:
        """Raise BadInputError, in the words of the service's validator, unless exactly one form fits."""
        if not isinstance(body, dict):
            raise BadInputError(f"Type mismatch of '/', 'object' not in '{json_type(body)}'")
        faults = [
            self._first_fault(validator, form, body)
            for validator, form in zip(self._validators, self._forms, strict=True)
        ]
        reasons = [fault for fault in faults if fault is not None]
        matches = len(faults) - len(reasons)
        if matches == 0:
            raise BadInputError(f"oneOf at '/' not met, 0 matches: {', '.join(reasons)}")
        if matches > 1:
            raise BadInputError(f"oneOf at '/' not met, {matches} matches")

    def _first_fault(
        self, validator: jsonschema_rs.Draft202012Validator, form: dict[str, Any], body: dict[str, Any]
    ) -> str | None:
        """Why the body is not of this form. A missing field comes before a wrong one."""
        errors = sorted(validator.iter_errors(body), key=lambda error: error.kind.name != "required")
        return _describe(errors[0], form) if errors else None


def json_type(value: object) -> str:
    """The JSON name of a Python value's type."""
    names = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (dict, "object"))
    if value is None:
        return "null"
    return next((name for kind, name in names if isinstance(value, kind)), "array")


def _describe(error: jsonschema_rs.ValidationError, form: dict[str, Any]) -> str:
    """One fault as the service's validator words it."""
    where = "/" + "/".join(str(step) for step in error.instance_path)
    words = _WORDS.get(error.kind.name, "'{where}': {message}")
    limit = _at(form, error.schema_path)
    if error.kind.name in ("required", "type") and isinstance(limit, list):  # all that are needed or allowed
        limit = ",".join(limit)
    return words.format(where=where, limit=limit, given=json_type(error.instance), message=error.message)


def _at(schema: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        schema = schema[step]
    return schema


def _published(name: str) -> dict[str, Any]:
    text = (resources.files("intaglio.api") / "schemas" / name).read_bytes()
    schema: dict[str, Any] = msgspec.json.decode(text)
    return schema


def _widened_input(schema: dict[str, Any]) -> dict[str, Any]:
    prompt_form, messages_form = (form["properties"] for form in schema["oneOf"])
    del prompt_form["prompt"]["maxLength"]
    messages_form["messages"]["items"]["properties"]["content"] = _CONTENT
    for name in ("raw", "lora"):
        messages_form[name] = prompt_form[name]
    for form in (prompt_form, messages_form):
        form["stop"] = _STOP
        form["max_tokens"]["minimum"] = 0
    return schema


def _widened_output(schema: dict[str, Any]) -> dict[str, Any]:
    answer = schema["oneOf"][0]
    answer["required"] = ["response"]
    answer["properties"]["finish_reason"] = {"type": "string", "enum": ["stop", "length"]}
    answer["properties"]["usage"]["properties"]["prompt_tokens_details"] = _CACHED_TOKENS
    return schema
