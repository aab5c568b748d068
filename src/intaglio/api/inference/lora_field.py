"""The field `lora`: the adapters that a request names, and their scales.

    "my-adapter"                                                as in Workers AI
    [{"name": "my-adapter", "scale": 0.7}, "another"]           ours: a list, each with a scale, by default 1

It may be in the body, in `options` or in the query string, where it is a single name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from intaglio.errors import BadInputError
from intaglio.request import MAX_ADAPTER_SCALE, MAX_ADAPTERS

_SHOWN_CHARACTERS = 300  # of the fields, in a message

# A list of types in place of a oneOf, so that an error names the place, such as lora[1].scale.
LORA_SCHEMA: dict[str, Any] = {
    "type": ["string", "array"],
    "description": "A finetune by name or id. Beyond Workers AI: a list of finetunes, which are scaled and added up.",
    "minItems": 1,
    "maxItems": MAX_ADAPTERS,
    "items": {
        "type": ["string", "object"],
        "properties": {
            "name": {"type": "string"},
            "scale": {
                "type": "number",
                "minimum": -int(MAX_ADAPTER_SCALE),
                "maximum": int(MAX_ADAPTER_SCALE),
                "default": 1,
                "description": "multiplies what the adapter adds; 0 leaves the adapter out",
            },
        },
        "required": ["name"],
        "additionalProperties": False,
    },
}


class NamedAdapter(NamedTuple):
    """An adapter as a request names it, by name or id, and its scale."""

    name: str
    scale: float = 1.0


def read_lora(lora: str | list[Any] | None) -> tuple[NamedAdapter, ...]:
    """The adapters of a field that fits LORA_SCHEMA. Raises BadInputError for a name that occurs twice."""
    named = _named_adapters([] if lora is None else lora)
    first: dict[str, int] = {}
    for place, adapter in enumerate(named):
        if first.setdefault(adapter.name, place) != place:
            raise BadInputError(
                f"lora[{place}] names {adapter.name!r}, which lora[{first[adapter.name]}] names already; "
                "name each adapter once"
            )
    return named


def lora_fields(body: Mapping[str, Any], query: Mapping[str, str]) -> list[Any]:
    """Every `lora` in body, `options` and query. Raises BadInputError if they name different adapters."""
    options = body.get("options")
    places: tuple[Mapping[str, Any], ...] = (body, options if isinstance(options, dict) else {}, query)
    given = [place["lora"] for place in places if "lora" in place]
    if not all(names_same_adapters(one, given[0]) for one in given[1:]):
        shown = str(given)[:_SHOWN_CHARACTERS]
        raise BadInputError(f"lora names different adapters in body, options and query: {shown}")
    return given


def with_lora(body: dict[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    """The body with its own field `lora` set from body, `options` or query. Raises BadInputError if they differ."""
    given = lora_fields(body, query)
    return {**body, "lora": given[0]} if given else body


def with_named_adapter(body: Any, query: Mapping[str, str], adapter: str | None) -> Any:
    """The body with the adapter that its model named as `lora`. Raises BadInputError if `lora` names another one."""
    if adapter is None or not isinstance(body, dict):
        return body
    check_same_adapter(adapter, lora_fields(body, query))
    return {**body, "lora": adapter}


def check_same_adapter(adapter: str, given: list[Any]) -> None:
    """given: the field `lora`, if it was sent. Raises BadInputError if it names another adapter than the model does."""
    if given and not names_same_adapters(given[0], adapter):
        raise BadInputError(f"model names the adapter {adapter!r} and lora the adapter {given[0]!r}")


def names_same_adapters(one: Any, other: Any) -> bool:
    """Whether two fields name the same adapters with the same scales, in whichever form."""
    if one == other:
        return True
    try:
        return sorted(_named_adapters(one)) == sorted(_named_adapters(other))
    except (TypeError, KeyError, ValueError, OverflowError):
        return False  # one of them does not fit the schema, which is checked later


def _named_adapters(lora: str | list[Any]) -> tuple[NamedAdapter, ...]:
    if isinstance(lora, str):
        return (NamedAdapter(lora),)
    return tuple(
        NamedAdapter(one) if isinstance(one, str) else NamedAdapter(one["name"], float(one.get("scale", 1.0)))
        for one in lora
    )
