"""JSON schemas as rows of a table: one for each field, with its kind and its bounds in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intaglio.api.reference.html import code, in_words, link

Schema = Mapping[str, Any]

SCHEMA_PREFIX = "#/components/schemas/"
_VARIANTS = ("anyOf", "oneOf")
# keyword -> how its bound is said
_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} keys",
    "pattern": "matches {}",
}


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One field of a body: `path` is its name below the body, such as `tools[].name`. The others are HTML."""

    path: str
    kind: str
    says: str
    required: bool


def schema_name(schema: Schema) -> str | None:
    """The name of the schema of the document that this one refers to."""
    reference = schema.get("$ref")
    return reference.removeprefix(SCHEMA_PREFIX) if isinstance(reference, str) else None


def schema_anchor(name: str) -> str:
    return f"schema-{name}"


def kind_of(schema: Schema) -> str:
    """What a value may be, as HTML: its type, its values or the schema that it has."""
    name = schema_name(schema)
    if name is not None:
        return link(f"#{schema_anchor(name)}", name)
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if "enum" in schema:
        return " or ".join(code(json.dumps(value)) for value in schema["enum"])
    for keyword in _VARIANTS:
        if keyword in schema:
            return " or ".join(dict.fromkeys(kind_of(one) for one in schema[keyword]))
    if "contentSchema" in schema:
        return f"JSON text of {kind_of(schema['contentSchema'])}"
    types = schema.get("type", "any value")
    return " or ".join(_named(one, schema) for one in ([types] if isinstance(types, str) else types))


def _named(kind: str, schema: Schema) -> str:
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        return f"array of {kind_of(schema['items'])}"
    return kind


def details_of(schema: Schema) -> str:
    """The description, the bounds and the default of a value, as HTML."""
    bounds = list(_bounds(schema))
    default = schema.get("default")
    if default is not None:
        bounds.append(f"default {code(json.dumps(default))}")
    says = in_words(schema["description"].rstrip(".")) if "description" in schema else ""
    return "; ".join(filter(None, (says, ", ".join(bounds))))


def _bounds(schema: Schema) -> Iterator[str]:
    for keyword, words in _BOUNDS.items():
        if keyword in schema:
            is_one = keyword.startswith("min") and schema[keyword] == 1 and keyword != "minimum"
            yield "not empty" if is_one else words.format(code(str(schema[keyword])))
    for variant in _variants(schema):
        yield from _bounds(variant)
        if "description" in variant and "description" not in schema:
            yield in_words(variant["description"])


def rows_of(schema: Schema, below: str = "") -> list[FieldRow]:
    """The fields of an object, with those of the objects and arrays in it. A reference is not followed."""
    required = schema.get("required", ())
    rows: list[FieldRow] = []
    for name, field in schema.get("properties", {}).items():
        path = f"{below}{name}"
        rows.append(FieldRow(path, kind_of(field), details_of(field), name in required))
        rows += _inner_rows(field, path)
    return rows


def _inner_rows(field: Schema, path: str) -> list[FieldRow]:
    found: dict[str, FieldRow] = {}
    for one in (field, *_variants(field)):
        for row in rows_of(one, f"{path}."):
            found.setdefault(row.path, row)
        items = one.get("items")
        if isinstance(items, Mapping):
            for row in _with_variants(items, f"{path}[]"):
                found.setdefault(row.path, row)
    return list(found.values())


def _with_variants(schema: Schema, path: str) -> list[FieldRow]:
    return [row for one in (schema, *_variants(schema)) for row in rows_of(one, f"{path}.")]


def _variants(schema: Schema) -> Sequence[Schema]:
    return [one for keyword in _VARIANTS for one in schema.get(keyword, ())]


def forms_of(schema: Schema) -> list[tuple[str, Schema]]:
    """The forms that a body can have, each with its title; one without a title where there is only one."""
    titled = [(one["title"], one) for one in _variants(schema) if "properties" in one and "title" in one]
    return titled or [("", schema)]
