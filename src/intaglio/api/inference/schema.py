"""The JSON schema of a text generation request, and its violations in the words of the service.

The published schema of gemma-7b-it-lora (schemas/, as Cloudflare publishes it) is served and used for every model, with
extensions that later schemas of its siblings or the service's own examples have:

    prompt, messages[].content   no maximum length: the context window is checked instead
    messages[].content           a string, an array of {type: "text", text}, or null; a tool's result may be any JSON
    raw, lora                    in both forms; lora may also be a list of adapters with scales
    tools, functions             in both forms; a tool needs only a name
    tool_choice, response_format, guided_json, stop             declared, in both forms
    frequency_penalty, presence_penalty                         from -2 on
    max_tokens                   not negative; the default is a setting
    min_p, min_tokens, ignore_eos, stop_token_ids, structured_outputs, guided_regex, guided_choice, guided_grammar
                                 declared, in both forms; vLLM's fields

Everything that the published schema accepts is accepted, except a negative max_tokens and invalid values of the fields
that are added here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from types import MappingProxyType
from typing import Any

import jsonschema_rs
import msgspec

from intaglio.api.http.json_body import nested_too_deeply
from intaglio.api.inference.forms.text_grammar import FORM_FIELDS
from intaglio.api.inference.lora_field import LORA_SCHEMA
from intaglio.errors import BadInputError
from intaglio.request import MAX_STOP_TOKENS

MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 1024  # of each: the time to prepare its search grows with it
_SHOWN_CHARACTERS = 100  # of an invalid value, in a message

_CONTENT_PART = {"type": "object", "properties": {"type": {"type": "string"}, "text": {"type": "string"}}}
_CONTENT = {"type": ["string", "array", "null"], "items": _CONTENT_PART}
CONTENT_BY_ROLE: dict[str, Any] = {  # of a message: a tool's result may be any JSON
    "if": {"properties": {"role": {"const": "tool"}}, "required": ["role"]},
    "else": {"properties": {"content": _CONTENT}},
}
STOP = {
    "type": ["string", "array", "null"],
    "minLength": 1,
    "maxLength": MAX_STOP_CHARS,
    "items": {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARS},
    "maxItems": MAX_STOP_STRINGS,
}
_RESPONSE_FORMAT = {
    "title": "JSON Mode",
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": ["json_object", "json_schema", "text"]},
        "json_schema": {"type": ["object", "null"]},
    },
    "required": ["type"],
}
_FUNCTION = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "description": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"]},
    },
    "required": ["name"],
}
_WRAPPED_FUNCTION = {
    "properties": {"type": {"type": "string", "enum": ["function"]}, "function": _FUNCTION},
    "required": ["type", "function"],
}
_TOOLS = {"type": "array", "items": {"type": "object", "anyOf": [_FUNCTION, _WRAPPED_FUNCTION]}}
_TOOL_CHOICE = {
    "type": ["string", "object"],
    "properties": {"type": {"type": "string"}, "function": {"type": "object"}},
}
_VLLM_FIELDS: dict[str, Any] = {
    "min_p": {"type": "number", "minimum": 0, "maximum": 1},
    "min_tokens": {"type": "integer", "minimum": 0},
    "ignore_eos": {"type": "boolean"},
    "stop_token_ids": {"type": "array", "maxItems": MAX_STOP_TOKENS, "items": {"type": "integer", "minimum": 0}},
    **FORM_FIELDS,
}
_CACHED_TOKENS = {"type": "object", "properties": {"cached_tokens": {"type": "number", "default": 0}}}

_MESSAGES = MappingProxyType({
    "required": "required properties at '{where}' are '{limit}'",
    "type": "Type mismatch of '{where}', '{limit}' not in '{given}'",
    "minimum": "'{where}' must be >= {limit}",
    "maximum": "'{where}' must be <= {limit}",
    "minLength": "Length of '{where}' must be >= {limit} not met",
    "maxLength": "Length of '{where}' must be <= {limit} not met",
    "minItems": "Number of items of '{where}' must be >= {limit} not met",
    "maxItems": "Number of items of '{where}' must be <= {limit} not met",
    "oneOf": "oneOf at '{where}' not met",
    "anyOf": "anyOf at '{where}' not met",
    "enum": "enum {value} not in {limit} at '{where}'",
    "additionalProperties": "'{where}' has an unknown property '{value}'; known are '{limit}'",
})  # fmt: skip


class RunSchema:
    """The input and output schema of text generation, with a checker for the input.

    default_max_tokens  of a request without
    """

    def __init__(self, default_max_tokens: int = 256) -> None:
        self.default_max_tokens = default_max_tokens
        self.input: dict[str, Any] = _extended_input(_published("gemma-7b-it-lora.input.json"), default_max_tokens)
        self.output: dict[str, Any] = _extended_output(_published("gemma-7b-it-lora.output.json"))
        self._forms: list[dict[str, Any]] = self.input["oneOf"]
        self._validators = [jsonschema_rs.Draft202012Validator(form) for form in self._forms]

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """The scalar fields that may also come as query parameters: name -> its schema."""
        declared = self._forms[0]["properties"]
        structured = {"prompt", "functions", "tools", "response_format", "guided_json", "stop_token_ids", *FORM_FIELDS}
        fields = {name: field for name, field in declared.items() if name not in structured}
        return {**fields, "lora": {"type": "string"}}  # not a list, which has no form in a query

    def check(self, body: object) -> None:
        """Raise BadInputError, in the words of the service's validator, unless the body has exactly one form.

        The reason is that of the form whose required field the body has; of each form if it has none of these, or both.
        """
        if not isinstance(body, dict):
            raise BadInputError(f"Type mismatch of '/', 'object' not in '{json_type(body)}'")
        violations = [
            first_violation(validator, form, body)
            for validator, form in zip(self._validators, self._forms, strict=True)
        ]
        reasons = [violation for violation in violations if violation is not None]
        matches = len(violations) - len(reasons)
        if matches == 0:
            meant = [index for index, form in enumerate(self._forms) if body.keys() >= set(form["required"])]
            reasons = [reasons[meant[0]]] if len(meant) == 1 else reasons
            raise BadInputError(f"oneOf at '/' not met, 0 matches: {', '.join(reasons)}")
        if matches > 1:
            raise BadInputError(f"oneOf at '/' not met, {matches} matches")


def first_violation(
    validator: jsonschema_rs.Draft202012Validator, form: dict[str, Any], body: dict[str, Any]
) -> str | None:
    """Why the body does not have this form, in the words of the service; a missing field comes before an invalid one.

    Only the first violation is sought: a body of ten megabytes may have millions. Raises BadInputError for a body that
    is nested more deeply than the validator reads.
    """
    if not body.keys() >= set(form["required"]):
        return _MESSAGES["required"].format(where="/", limit=",".join(form["required"]))
    try:
        validator.validate(body)
    except jsonschema_rs.ValidationError as error:
        return _describe(error, form)
    except ValueError as error:  # a ValidationError is one too
        raise nested_too_deeply() from error
    return None


def json_type(value: object) -> str:
    """The JSON name of a Python value's type."""
    names = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (dict, "object"))
    if value is None:
        return "null"
    return next((name for kind, name in names if isinstance(value, kind)), "array")


def member(place: str, value: Mapping[str, Any], name: str, kind: type) -> Any:
    """A member of the object at `place`, of that type. Raises BadInputError."""
    if name not in value:
        raise BadInputError(f"required properties at '{place}' are '{name}'")
    if not isinstance(value[name], kind):
        wanted = json_type(kind())
        raise BadInputError(f"Type mismatch of '{place}/{name}', '{wanted}' not in '{json_type(value[name])}'")
    return value[name]


def typed_object(place: str, value: object) -> Mapping[str, Any]:
    """The value, if it is an object whose `type` is a string. Raises BadInputError."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise BadInputError(f"required properties at '{place}' are 'type'")
    return value


def _describe(error: jsonschema_rs.ValidationError, form: dict[str, Any]) -> str:
    """A violation in the words of the service's validator."""
    where = "/" + "/".join(str(step) for step in error.instance_path)
    keyword = error.kind.name
    message = _MESSAGES.get(keyword, "'{where}' does not satisfy {keyword} {limit}")
    limit = _value_at(form, error.schema_path)
    value = error.instance
    if keyword == "additionalProperties" and isinstance(value, dict):
        limit = list(_value_at(form, error.schema_path[:-1])["properties"])
        value = next(name for name in value if name not in limit)
    if isinstance(limit, list):  # all that are required, allowed or known
        limit = ",".join(map(str, limit))
    given, value = json_type(error.instance), str(value)[:_SHOWN_CHARACTERS]
    return message.format(where=where, keyword=keyword, limit=limit, given=given, value=value)


def _value_at(schema: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        schema = schema[step]
    return schema


def _published(name: str) -> dict[str, Any]:
    text = (resources.files("intaglio.api") / "schemas" / name).read_bytes()
    schema: dict[str, Any] = msgspec.json.decode(text)
    return schema


def _extended_input(schema: dict[str, Any], default_max_tokens: int) -> dict[str, Any]:
    prompt_form, messages_form = (form["properties"] for form in schema["oneOf"])
    del prompt_form["prompt"]["maxLength"]
    messages_form["messages"]["items"]["properties"]["content"] = {}
    messages_form["messages"]["items"] |= CONTENT_BY_ROLE
    messages_form["raw"] = prompt_form["raw"]
    prompt_form["functions"] = messages_form["functions"]
    for form in (prompt_form, messages_form):
        form.update(
            lora=LORA_SCHEMA,
            tools=_TOOLS,
            tool_choice=_TOOL_CHOICE,
            response_format=_RESPONSE_FORMAT,
            guided_json={"type": "object"},
            stop=STOP,
            **_VLLM_FIELDS,
        )
        form["max_tokens"] |= {"minimum": 0, "default": default_max_tokens}
        for name in ("frequency_penalty", "presence_penalty"):
            form[name]["minimum"] = -2
    return schema


def _extended_output(schema: dict[str, Any]) -> dict[str, Any]:
    result = schema["oneOf"][0]
    result["required"] = ["response"]
    result["properties"]["response"] = {"type": ["string", "object", "array", "number", "boolean", "null"]}  # JSON mode
    result["properties"]["finish_reason"] = {"type": "string", "enum": ["stop", "length", "tool_calls"]}
    result["properties"]["usage"]["properties"]["prompt_tokens_details"] = _CACHED_TOKENS
    return schema
