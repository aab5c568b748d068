"""A command line for an operation, with the smallest body that its schema takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from intaglio.api.openapi.operation import JSON
from intaglio.api.reference.fields import Schema, schema_name

FORM = "multipart/form-data"
# What a field or parameter of this name holds where its schema gives no example. A variable is for the reader to set.
_VALUES: dict[str, Any] = {
    "prompt": "Hello",
    "messages": [{"role": "user", "content": "Hello"}],
    "input": "Hello",
    "max_tokens": 64,
    "name": "my-adapter",
    "file_name": "adapter_config.json",
    "file": "@adapter_config.json",
    "finetune": "my-adapter",
    "response_id": "$RESPONSE_ID",
    "gateway": "my-gateway",
    "tokens": [2, 1596],
}


def curl_command(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any], server: str) -> str:
    """A command of one or two lines. server: the address before the path."""
    model = _model_of(document)
    words = ["curl"]
    if method not in ("get", "post"):
        words.append(f"-X {method.upper()}")
    words.append(f'"{server}{_filled(path, operation, model)}"')
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "header" and parameter.get("required"):
            words.append(f'-H "{parameter["name"]}: {parameter.get("example", _VALUES.get(parameter["name"], "…"))}"')
    if _needs_token(document, operation):
        words.append('-H "Authorization: Bearer $INTAGLIO_TOKEN"')
    content = operation.get("requestBody", {}).get("content", {})
    if FORM in content:
        fields = example_of(document, content[FORM]["schema"], model)
        words += [f"-F {name}={value}" for name, value in fields.items()]
    elif JSON in content:
        body = json.dumps(example_of(document, content[JSON]["schema"], model), ensure_ascii=False)
        words.append(f"\\\n  -d '{body}'")
    elif method == "post":
        words.append("-X POST")
    return " ".join(words)


def _filled(path: str, operation: Mapping[str, Any], model: str) -> str:
    query = []
    for parameter in operation.get("parameters", ()):
        name = parameter["name"]
        value = model if name == "model" else parameter.get("example", _VALUES.get(name, "…"))
        if parameter["in"] == "path":
            path = path.replace(f"{{{name}}}", str(value))
        elif parameter["in"] == "query" and (parameter["required"] or name == "model"):
            query.append(f"{name}={value}")
    return path + (f"?{'&'.join(query)}" if query else "")


def _needs_token(document: Mapping[str, Any], operation: Mapping[str, Any]) -> bool:
    return {} not in document["security"] and operation.get("security") != []


def _model_of(document: Mapping[str, Any]) -> str:
    """The model that examples of the document name."""
    return str(document["components"]["schemas"]["ChatInput"]["properties"]["model"]["examples"][0])


def example_of(document: Mapping[str, Any], schema: Schema, model: str, name: str = "") -> Any:
    """A value that the schema takes: required fields and the model, in the first of several forms."""
    referred = schema_name(schema)
    if referred is not None:
        return example_of(document, document["components"]["schemas"][referred], model)
    forms = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    known = {**_VALUES, "model": model}
    if schema.get("examples"):
        found = schema["examples"][0]
    elif name in known and not any(map(schema_name, forms)):
        found = known[name]
    elif forms and "properties" not in schema:
        found = example_of(document, forms[0], model, name)
    elif "properties" in schema:
        required = schema.get("required", ())
        fields = {key: field for key, field in schema["properties"].items() if key in required or key == "model"}
        if not required and "prompt" in schema["properties"]:  # one of several is enough
            fields["prompt"] = schema["properties"]["prompt"]
        found = {key: example_of(document, field, model, key) for key, field in fields.items()}
    else:
        found = _plain_example(document, schema, model)
    return found


def _plain_example(document: Mapping[str, Any], schema: Schema, model: str) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    kinds = schema.get("type", "string")
    match kinds if isinstance(kinds, str) else kinds[0]:
        case "array":
            return [example_of(document, schema.get("items", {}), model)] if schema.get("minItems") else []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return schema.get("default", True)
        case "object":
            return {}
        case _:
            return "…"
