"""The field `lora`: which adapters a request names, and how much of each.

    "my-adapter"                                                as Workers AI has it
    [{"name": "my-adapter", "scale": 0.7}, "another"]           ours: a list, a scale for each, 1 where none is given

It may stand in the body, in `options` or in the query string, where it is a single name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from intaglio.errors import BadInputError
from intaglio.request import MAX_ADAPTER_SCALE, MAX_ADAPTERS

_SHOWN_CHARACTERS = 300  # of what was sent

# One type list in place of a oneOf: a fault is then told with its place, as '/lora/1/scale'.
LORA_SCHEMA: dict[str, Any] = {
    "type": ["string", "array"],
    "description": "A finetune by name or id. Beyond Workers AI: a list of them that are added up, each maybe scaled.",
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
                "description": "what the adapter adds is multiplied with it; 0 leaves it out",
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
    """The adapters of a field that its schema has accepted. Raises BadInputError for a name that stands there twice."""
    named = _as_named([] if lora is None else lora)
    first: dict[str, int] = {}
    for place, adapter in enumerate(named):
        if first.setdefault(adapter.name, place) != place:
            raise BadInputError(
                f"'/lora/{place}' names {adapter.name!r}, which '/lora/{first[adapter.name]}' names already: "
                "each adapter stands there once"
            )
    return named


def lora_fields(body: Mapping[str, Any], query: Mapping[str, str]) -> list[Any]:
    """`lora` as it stands in body, `options` and query, wherever it does. Raises BadInputError if they differ."""
    options = body.get("options")
    places: tuple[Mapping[str, Any], ...] = (body, options if isinstance(options, dict) else {}, query)
    given = [place["lora"] for place in places if "lora" in place]
    if not all(names_same_adapters(one, given[0]) for one in given[1:]):
        shown = str(given)[:_SHOWN_CHARACTERS]
        raise BadInputError(f"'/lora' names different adapters in body, options and query: {shown}")
    return given


def with_lora(body: dict[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    """The body with the adapters that it, its `options` or the query name in its own field. Raises BadInputError."""
    given = lora_fields(body, query)
    return {**body, "lora": given[0]} if given else body


def names_same_adapters(one: Any, other: Any) -> bool:
    """Whether two fields ask for the same adapters, whichever way they are written."""
    if one == other:
        return True
    try:
        return sorted(_as_named(one)) == sorted(_as_named(other))
    except (TypeError, KeyError, ValueError, OverflowError):
        return False  # one of them is not as the schema has it, which says so where it is used


def _as_named(lora: str | list[Any]) -> tuple[NamedAdapter, ...]:
    if isinstance(lora, str):
        return (NamedAdapter(lora),)
    return tuple(
        NamedAdapter(one) if isinstance(one, str) else NamedAdapter(one["name"], float(one.get("scale", 1.0)))
        for one in lora
    )
