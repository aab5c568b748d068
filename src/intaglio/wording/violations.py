"""The violation of a JSON schema as a sentence about the field; no word of it is the schema's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jsonschema_rs

from intaglio.wording import fields

_COUNTED = {  # keyword -> the words, what is counted
    "minLength": (fields.too_short, "character"),
    "maxLength": (fields.too_long, "character"),
    "minItems": (fields.too_short, "item"),
    "maxItems": (fields.too_long, "item"),
    "minProperties": (fields.too_short, "field"),
    "maxProperties": (fields.too_long, "field"),
}
_WORDS: dict[str, Callable[[str, Any, Any], str]] = {
    "minimum": fields.too_low,
    "maximum": fields.too_high,
    "enum": fields.not_one_of,
    "type": lambda place, value, kinds: fields.wrong_type(place, value, [kinds] if isinstance(kinds, str) else kinds),
}


def first_violation(
    validator: jsonschema_rs.Draft202012Validator, schema: Mapping[str, Any], body: Mapping[str, Any]
) -> str | None:
    """Why the body does not fit the schema; None if it does. A missing field comes before an invalid one.

    Only the first violation is sought: a body of ten megabytes may have millions. Raises ValueError for a body that
    is nested more deeply than the validator reads.
    """
    lacking = [name for name in schema["required"] if name not in body]
    if lacking:
        return fields.missing("", lacking, _unknown_names(body, schema))
    try:
        validator.validate(body)
    except jsonschema_rs.ValidationError as error:
        return describe(error, schema)
    return None


def describe(error: jsonschema_rs.ValidationError, schema: Mapping[str, Any]) -> str:
    """The sentence about one violation of that schema."""
    keyword = error.kind.name
    limit = _value_at(schema, error.schema_path)
    if keyword in ("anyOf", "oneOf"):
        return _of_the_meant_branch(error, schema, limit)
    place, value = fields.place_of(error.instance_path), _value(error)
    if keyword in _COUNTED:
        words, unit = _COUNTED[keyword]
        return words(place, len(value), limit, unit)
    if keyword in _WORDS:
        return _WORDS[keyword](place, value, limit)
    return _about_members(keyword, place, value, _value_at(schema, error.schema_path[:-1]))


def fault_of(error: jsonschema_rs.ValidationError) -> str:
    """The sentence about one violation of a schema that is not at hand, which begins with "it is"."""
    while error.kind.name in ("anyOf", "oneOf"):
        error = _details(error)["context"][0][0]
    keyword, value = error.kind.name, error.instance
    if keyword == "type":
        return fields.wrong_type("it", value, _details(error)["types"])
    if keyword == "enum":
        return fields.not_one_of("it", value, _details(error)["options"])
    if keyword in _WORDS:
        return _WORDS[keyword]("it", value, _details(error)["limit"])
    return f"it is {fields.shown(value)}, which cannot stand there"


def _about_members(keyword: str, place: str, value: Any, owner: Mapping[str, Any]) -> str:
    """owner: the schema that declares the members."""
    if keyword == "required":
        kinds = owner.get("properties", {}).get("type", {}).get("enum")
        if kinds is not None and value.get("type") not in (*kinds, None):  # it lacks what another kind has
            return fields.not_one_of(fields.at(place, "type"), value["type"], kinds)
        lacking = [name for name in owner["required"] if name not in value]
        return fields.missing(place, lacking, _unknown_names(value, owner))
    if keyword == "additionalProperties" and owner["additionalProperties"] is False:
        known = list(owner["properties"])
        return fields.unknown(place, next(name for name in value if name not in known), known)
    return f"{place or fields.BODY} is {fields.shown(value)}, which cannot be used; see docs/http_api.md"


def _of_the_meant_branch(error: jsonschema_rs.ValidationError, schema: Mapping[str, Any], branches: Any) -> str:
    """Of several alternatives, the first fault of the one whose required fields the value has most of."""
    value = error.instance
    names = set(value) if isinstance(value, dict) else set()
    meant = max(range(len(branches)), key=lambda number: len(names & set(branches[number].get("required", ()))))
    return describe(_details(error)["context"][meant][0], schema)


def _value(error: jsonschema_rs.ValidationError) -> Any:
    return error.instance


def _details(error: jsonschema_rs.ValidationError) -> dict[str, Any]:
    """What the keyword says: the `limit`, the `types`, the violations of each alternative in `context`."""
    return error.kind.as_dict()


def _unknown_names(value: object, owner: Mapping[str, Any]) -> list[str]:
    declared = owner.get("properties", {})
    return [name for name in value if name not in declared] if isinstance(value, dict) else []


def _value_at(schema: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        schema = schema[step]
    return schema
