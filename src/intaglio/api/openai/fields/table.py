"""The whole table."""

from __future__ import annotations

import json
from collections.abc import Mapping

from intaglio.api.openai.fields.field import Field, Route
from intaglio.api.openai.fields.harmless import HARMLESS
from intaglio.api.openai.fields.honoured import HONOURED
from intaglio.api.openai.fields.refused import REFUSED

FIELDS: tuple[Field, ...] = (*HONOURED, *HARMLESS, *REFUSED)


def fields_of(route: Route) -> Mapping[str, Field]:
    """The fields of a route by name."""
    return {field.name: field for field in FIELDS if route in field.routes}


def markdown_rows() -> list[str]:
    """The table as docs/http_api.md has it: a row for each field and treatment, by name."""
    ordered = sorted(FIELDS, key=lambda field: (field.name, sorted(field.routes)))
    return [_row(field) for field in ordered]


def _row(field: Field) -> str:
    of = "both" if len(field.routes) > 1 else next(iter(field.routes)).value
    passes = ", ".join(f"`{json.dumps(value)}`" for value in field.passes)
    note = field.note + (f". {passes} passes" if passes else "")
    return f"| `{field.name}` | {of} | {field.treatment.value} | {note} |"
