"""What a failure looks like: which statuses and codes an operation can have, from the errors it can raise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from enum import Enum
from typing import Any

from intaglio.api.http.errors import (
    BINDING_CODES,
    AnthropicErrorEvent,
    AnthropicFailure,
    BindingFailure,
    Failure,
    OpenAIErrorEvent,
    OpenAIFailure,
    wire_row,
)
from intaglio.api.http.wire import component_schemas
from intaglio.api.openapi.shapes import TEXT, ref
from intaglio.errors import IntaglioError


class Failures(Enum):
    """The forms of an error; a value is the name of its schema."""

    ENVELOPE = "Failure"
    OPENAI = "OpenAIFailure"
    ANTHROPIC = "AnthropicFailure"
    BINDING = "BindingFailure"


FAILURE_SCHEMAS: dict[str, Any] = component_schemas(
    (Failure, OpenAIFailure, OpenAIErrorEvent, AnthropicFailure, AnthropicErrorEvent, BindingFailure)
)


def failure_responses(errors: Sequence[type[IntaglioError]], form: Failures) -> dict[str, Any]:
    """The responses by status, each with its codes and their meanings."""
    by_status: defaultdict[int, list[type[IntaglioError]]] = defaultdict(list)
    for kind in errors:
        by_status[wire_row(kind).status].append(kind)
    return {str(status): _response(kinds, form) for status, kinds in sorted(by_status.items())}


def _response(kinds: Sequence[type[IntaglioError]], form: Failures) -> dict[str, Any]:
    meanings: defaultdict[int, list[str]] = defaultdict(list)
    for kind in kinds:
        meanings[_code(kind, form)].append((kind.__doc__ or "").strip().split("\n")[0])
    lines = [f"- `{code}`: {' '.join(said)}" for code, said in meanings.items()]
    response: dict[str, Any] = {
        "description": "\n".join(lines),
        "content": {"application/json": {"schema": _with_codes(form, sorted(meanings))}},
    }
    headers = [dict(wire_row(kind).headers) for kind in kinds]
    for name in {name for given in headers for name in given}:
        always = all(name in given for given in headers)
        response.setdefault("headers", {})[name] = {"required": always, "schema": TEXT}
    return response


def _code(kind: type[IntaglioError], form: Failures) -> int:
    code = wire_row(kind).code
    return BINDING_CODES.get(kind, code) if form is Failures.BINDING else code


def _with_codes(form: Failures, codes: list[int]) -> dict[str, Any]:
    """The form, and which codes it can have here."""
    having: dict[str, Any]
    if form is Failures.BINDING:
        having = {"internalCode": {"enum": codes}}
    else:
        having = {"errors": {"type": "array", "items": {"properties": {"code": {"enum": codes}}}}}
    return {"allOf": [ref(form.value), {"type": "object", "properties": having}]}
