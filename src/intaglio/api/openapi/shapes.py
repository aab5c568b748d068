"""The words of which the document's schemas are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from intaglio.api.http.auth import ACCOUNT_PATTERN
from intaglio.api.openai.schema import BodyCheck

TEXT: dict[str, Any] = {"type": "string"}
FLAG: dict[str, Any] = {"type": "boolean"}
QUERY_FLAG: dict[str, Any] = {"anyOf": [FLAG, {"type": "string", "enum": ["true", "false", "1", "0", ""]}]}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
TIME: dict[str, Any] = {
    "type": "string",
    "pattern": r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$",
    "description": "UTC",
    "examples": ["2026-01-31 12:00:00.000"],
}


def ref(name: str) -> dict[str, Any]:
    """A schema of the document, by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(
    fields: Mapping[str, Mapping[str, Any]], optional: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """An object that has all of `fields`, and may have the optional ones."""
    return {"type": "object", "properties": {**fields, **(optional or {})}, "required": list(fields)}


def listed(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(items)}


def or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [dict(schema), {"type": "null"}]}


def one_of(values: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def parameter(
    name: str, where: str, schema: Mapping[str, Any], says: str = "", *, required: bool = False, example: Any = None
) -> dict[str, Any]:
    """where: path, query or header. What stands in the path is always required."""
    made: dict[str, Any] = {"name": name, "in": where, "required": required or where == "path", "schema": dict(schema)}
    if says:
        made["description"] = says
    if example is not None:
        made["example"] = example
    return made


ACCOUNT = parameter(
    "account", "path", {"type": "string", "pattern": f"^{ACCOUNT_PATTERN}$"}, "Any account: nothing has to be set up.",
    example="local",
)  # fmt: skip
GATEWAY = parameter(
    "gateway", "path", {"type": "string", "minLength": 1}, "The name of an AI Gateway, which changes nothing."
)
FINETUNE = parameter("finetune", "path", {"type": "string", "minLength": 1}, "A finetune by its name or id.")


def model_in_path(example: str) -> dict[str, Any]:
    """A model's id has slashes. A path parameter of OpenAPI cannot show them: see the text."""
    says = (
        "The model's id. Its slashes and the @ may stand in the path as they are or escaped, as %2F and %40: "
        "generated clients escape them."
    )
    return parameter("model", "path", {"type": "string", "minLength": 1}, says, example=example)


def as_sent(check: BodyCheck, model: str) -> dict[str, Any]:
    """The schema that checks; null means absent, and some keys of OpenAI's are refused."""
    required = check.schema["required"]
    fields = {name: field if name in required else or_null(field) for name, field in check.schema["properties"].items()}
    fields["model"] = {**fields["model"], "examples": [model]}
    refused: dict[str, Any] = {
        name: {"description": f"Not supported: {reason}", "enum": [None, []]} for name, reason in check.refused.items()
    }
    return {**check.schema, "properties": {**fields, **refused}}
