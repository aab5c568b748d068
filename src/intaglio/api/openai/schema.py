"""The check of an OpenAI-compatible body: its JSON schema and its table of fields.

Null means absent, as OpenAI's own API has it, but for `max_tokens`, where it means as many as the window has room for.
No field is ignored: one that the table (`fields`) does not have is refused with the name that it resembles.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jsonschema_rs

from intaglio.api.inference.lora_field import with_lora
from intaglio.api.inference.schema import checked_violation
from intaglio.api.openai.fields import Field, Route, Treatment, fields_of
from intaglio.errors import BadInputError
from intaglio.wording import at, shown, wrong_type
from intaglio.wording.similar import meant_or

_WINDOW_FIELDS = ("max_tokens", "max_completion_tokens")
_TO_WINDOW = -1


def _schema(route: Route, required: list[str]) -> dict[str, Any]:
    properties = {name: field.declared() for name, field in fields_of(route).items()}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


CHAT_SCHEMA: dict[str, Any] = _schema(Route.CHAT, ["model", "messages"])
COMPLETIONS_SCHEMA: dict[str, Any] = _schema(Route.COMPLETIONS, ["model", "prompt"])


class BodyCheck:
    """One body's schema and its checker.

    refused   key -> why; such a key may be null, false or an empty list
    fields    the table of the route's fields, by name: a key that it does not have is refused. None: keys that neither
              schema nor `refused` has are let through, unless the schema forbids them
    others    the table of another route: its fields that neither schema nor `refused` has are refused as fields of that
              route, not as misspelt ones
    """

    def __init__(
        self,
        schema: dict[str, Any],
        refused: Mapping[str, str] = MappingProxyType({}),
        fields: Mapping[str, Field] | None = None,
        others: Mapping[str, Field] = MappingProxyType({}),
    ) -> None:
        self.schema = schema
        self.refused = refused
        self.fields = fields
        self._others = {name: field for name, field in others.items() if name not in schema["properties"]}
        self._validator = jsonschema_rs.Draft202012Validator(schema)

    def read(self, body: object, query: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
        """The body without its nulls and refused keys, with the adapters that `options` or the query name.

        Raises BadInputError naming the field and its bound.
        """
        if not isinstance(body, dict):
            raise BadInputError(wrong_type("", body, ["object"]))
        given = with_lora({name: value for name, value in body.items() if value is not None}, query)
        for name, reason in self.refused.items():
            if given.get(name, []) != [] and given[name] is not False:  # these ask for nothing
                raise BadInputError(f"{name} is not supported: {reason}")
        given = {name: value for name, value in given.items() if name not in self.refused}
        given = {name: value for name, value in given.items() if not self._is_without_effect(name, value)}
        if self.fields is not None:
            given = _read_by_table(body, given, self.fields)
        fault = checked_violation(self._validator, self.schema, given)
        if fault is not None:
            raise BadInputError(fault)
        return given

    def _is_without_effect(self, name: str, value: object) -> bool:
        """Whether a field of another route asks for nothing. Raises BadInputError if it asks for something."""
        field = self._others.get(name)
        if field is None or field.treatment is Treatment.HARMLESS:
            return False
        if field.treatment is Treatment.HONOURED:
            raise BadInputError(f"{name} is not a field of this route: chat/completions has it. It is {shown(value)}")
        reason = field.refusal(value)
        if reason is not None:
            raise BadInputError(reason)
        return True


def _read_by_table(body: Mapping[str, Any], given: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """What is given without the fields that ask for nothing. Raises BadInputError for a refused or unknown one."""
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name not in fields:
            raise BadInputError(_unknown(name, fields))
        reason = fields[name].refusal(value)
        if reason is not None:
            raise BadInputError(reason)
        if fields[name].treatment is not Treatment.REFUSED:
            read[name] = value
    if not any(name in read for name in _WINDOW_FIELDS) and any(name in body for name in _WINDOW_FIELDS):
        read["max_tokens"] = _TO_WINDOW
    return read


def _unknown(name: str, fields: Mapping[str, Field]) -> str:
    known = [other for other, field in fields.items() if field.treatment is not Treatment.REFUSED]
    hint = meant_or(name, known, "leave it out; docs/http_api.md lists the fields")
    return f"{at('', name)} is not a field of this route; {hint}"


def chat_check() -> BodyCheck:
    """The check for chat completions."""
    return BodyCheck(CHAT_SCHEMA, fields=fields_of(Route.CHAT))


def completions_check() -> BodyCheck:
    """The check for completions."""
    return BodyCheck(COMPLETIONS_SCHEMA, fields=fields_of(Route.COMPLETIONS))
