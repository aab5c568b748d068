"""The JSON schema of a text generation request, and its check.

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
from typing import Any

import jsonschema_rs
import msgspec

from intaglio.api.http.json_body import nested_too_deeply
from intaglio.api.inference.forms.text_grammar import FORM_FIELDS
from intaglio.api.inference.lora_field import LORA_SCHEMA
from intaglio.errors import BadInputError
from intaglio.request import MAX_STOP_TOKENS
from intaglio.wording import at, missing, similar_names, wrong_type
from intaglio.wording.similar import misspelt
from intaglio.wording.violations import first_violation

MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 1024  # of each: the time to prepare its search grows with it
_OTHER_FIELDS = ("options", "requests", "request_id", "queueRequest", "external_reference")
_MOST_NOTES = 20
_JSON_TYPES = {str: "string", list: "array", dict: "object", bool: "boolean"}

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
        """Raise BadInputError, with the field, its value and the bound, unless the body has exactly one form.

        The reason is that of the form whose required field the body has.
        """
        if not isinstance(body, dict):
            raise BadInputError(wrong_type("", body, ["object"]))
        given = [number for number, form in enumerate(self._forms) if form["required"][0] in body]
        needed = [form["required"][0] for form in self._forms]
        if not given:
            raise BadInputError(_no_form(body, needed))
        faults = [checked_violation(self._validators[number], self._forms[number], body) for number in given]
        fault = faults[0]
        if fault is not None and None not in faults:
            raise BadInputError(fault)
        if faults.count(None) > 1:
            raise BadInputError(f"{' and '.join(needed)} are both given; send one of them")

    def misspelt_fields(self, body: Mapping[str, Any]) -> list[str]:
        """Sentences about unknown fields that are known ones but for a letter or two.

        Unknown fields are no fault, as in the service: its clients send fields of other models.
        """
        known = {*_OTHER_FIELDS, *(name for form in self._forms for name in form["properties"])}
        unknown = [name for name in body if name not in known][:_MOST_NOTES]
        meant = [(name, misspelt(name, sorted(known))) for name in unknown]
        return [f"{name} is not known and was ignored; did you mean {one}?" for name, one in meant if one is not None]


def checked_violation(
    validator: jsonschema_rs.Draft202012Validator, form: dict[str, Any], body: dict[str, Any]
) -> str | None:
    """`first_violation`. Raises BadInputError for a body that is nested more deeply than the validator reads."""
    try:
        return first_violation(validator, form, body)
    except ValueError as error:
        raise nested_too_deeply() from error


def member(place: str, value: Mapping[str, Any], name: str, kind: type) -> Any:
    """A member of the object at `place`, of that type. Raises BadInputError."""
    if name not in value:
        raise BadInputError(missing(place, [name], value))
    if not isinstance(value[name], kind):
        raise BadInputError(wrong_type(at(place, name), value[name], [_JSON_TYPES[kind]]))
    return value[name]


def typed_object(place: str, value: object) -> Mapping[str, Any]:
    """The value, if it is an object whose `type` is a string. Raises BadInputError."""
    if not isinstance(value, dict):
        raise BadInputError(wrong_type(place, value, ["object"]))
    member(place, value, "type", str)
    return value


def _no_form(body: Mapping[str, Any], needed: Sequence[str]) -> str:
    """The sentence about a body that has none of the fields of which one is needed."""
    for name in needed:
        near = similar_names(name, body, at_most=1)
        if near:
            return f"{at('', near[0])} is not known; did you mean {name}?"
    return f"{' or '.join(needed)} is missing"


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
