"""What it means that a schema does not hold. The negation is never too wide: where a keyword has no negation that can
be written as a schema, the values that only it would refuse are left out; if none are left, the keyword is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from intaglio.json_schema.limits import not_enforced
from intaglio.json_schema.parts import TYPES, Choice, Expander, Expansion, Part, type_of, types_of

_NAMES = ("null", "boolean", "number", "string", "array", "object")
_SINCE = {
    "const": 6, "contains": 6, "propertyNames": 6, "if": 7, "dependentRequired": 2019, "dependentSchemas": 2019,
    "unevaluatedProperties": 2019, "unevaluatedItems": 2019, "prefixItems": 2020,
}  # fmt: skip
# With one of these a schema may refuse values, but there is no way here to say which.
_NOT_NEGATED = frozenset({
    "multipleOf", "uniqueItems", "patternProperties", "additionalProperties", "propertyNames", "dependentRequired",
    "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems", "format", "additionalItems",
    "$dynamicRef", "$recursiveRef",
})  # fmt: skip


def negation(part: Part, expander: Expander) -> Expansion:
    """The expansion of a negated part."""
    schema = part.schema
    holds = Part(schema, part.place)
    draft = expander.references.draft
    if expander.has_reference(schema) and expander.references.is_old:
        return Expansion(parts=(expander.target(holds).opposite(),))
    known = {name: value for name, value in schema.items() if _SINCE.get(name, 0) <= draft}
    alternatives: Choice = []
    if expander.has_reference(known):
        alternatives.append((expander.target(holds).opposite(),))
    alternatives += _of_applicators(holds, known)
    alternatives += [(holds.made(found),) for found in _of_types(holds, known)]
    alternatives += [(holds.made(found),) for found in _of_scalars(known)]
    alternatives += [(holds.made(found),) for found in _of_members(holds, known, draft)]
    if not alternatives and (lost := _NOT_NEGATED & known.keys()):
        raise not_enforced(min(lost), part.place, "it stands under a negation (not, if or oneOf)")
    return Expansion(choices=(alternatives,), impossible=not alternatives)


def _of_applicators(part: Part, schema: Mapping[str, Any]) -> Iterator[tuple[Part, ...]]:
    for index, child in enumerate(schema.get("allOf", ())):
        yield (part.child(child, "allOf", index).opposite(),)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            yield tuple(part.child(child, keyword, index).opposite() for index, child in enumerate(schema[keyword]))
    if "not" in schema:
        yield (part.child(schema["not"], "not"),)
    if "if" in schema:
        condition = part.child(schema["if"], "if")
        if "then" in schema:
            yield condition, part.child(schema["then"], "then").opposite()
        if "else" in schema:
            yield condition.opposite(), part.child(schema["else"], "else").opposite()


def _of_types(part: Part, schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if not {"type", "enum", "const"} & schema.keys():
        return
    only = {name: schema[name] for name in ("type", "enum", "const") if name in schema}
    others = TYPES - types_of({"type": schema.get("type", sorted(_NAMES))}, part.place)
    for keyword in ("enum", "const"):
        if keyword in only:
            values = list(only[keyword]) if keyword == "enum" else [only[keyword]]
            others |= TYPES - {type_of(value) for value in values}
            yield from _other_values(values)
    if "fraction" in others and "integer" not in others:
        others -= {"fraction"}  # numbers that are not integers cannot be written as a schema
    named = {"number" if name == "fraction" else name for name in others}
    if named:
        yield {"type": sorted(named)}


def _other_values(values: list[Any]) -> Iterator[Mapping[str, Any]]:
    """Values of the same types that are not among these."""
    if strings := [value for value in values if isinstance(value, str)]:
        yield {"type": "string", "not literals": strings}
    flags = {value for value in values if isinstance(value, bool)}
    if len(flags) == 1:
        yield {"enum": [not flags.pop()]}
    numbers = sorted({value for value in values if isinstance(value, int | float) and not isinstance(value, bool)})
    if numbers and len(numbers) <= 32:
        for low, high in zip([None, *numbers], [*numbers, None], strict=True):
            bounds = {"exclusiveMinimum": low, "exclusiveMaximum": high}
            yield {"type": "number", **{name: bound for name, bound in bounds.items() if bound is not None}}


def _of_scalars(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "pattern" in schema:
        yield {"type": "string", "not pattern": schema["pattern"]}
    opposites = {
        "minimum": ("number", "exclusiveMaximum", 0), "maximum": ("number", "exclusiveMinimum", 0),
        "exclusiveMinimum": ("number", "maximum", 0), "exclusiveMaximum": ("number", "minimum", 0),
        "minLength": ("string", "maxLength", -1), "maxLength": ("string", "minLength", 1),
        "minItems": ("array", "maxItems", -1), "maxItems": ("array", "minItems", 1),
        "minProperties": ("object", "maxProperties", -1), "maxProperties": ("object", "minProperties", 1),
    }  # fmt: skip
    for keyword, (kind, opposite, step) in opposites.items():
        bound = schema.get(keyword)
        if isinstance(bound, int | float) and not isinstance(bound, bool) and not (step < 0 and bound < 1):
            yield {"type": kind, opposite: bound + step}
    for keyword, opposite in (("minimum", "maximum"), ("maximum", "minimum")):
        if schema.get(f"exclusive{keyword.capitalize()}") is True and keyword in schema:  # draft 4
            yield {"type": "number", opposite: schema[keyword]}


def _of_members(part: Part, schema: Mapping[str, Any], draft: int) -> Iterator[Mapping[str, Any]]:
    required = schema.get("required", ())
    for name in required if isinstance(required, list | tuple) else ():
        yield {"type": "object", "properties": {name: False}}
    for name, child in schema.get("properties", {}).items():
        broken = part.child(child, "properties", name).opposite()
        yield {"type": "object", "properties": {name: broken}, "required": [name]}
    prefix, rest = schema.get("prefixItems", []), schema.get("items")
    if isinstance(rest, list | tuple):
        prefix, rest = (rest, None) if draft < 2020 else ([], None)
    for index, child in enumerate(prefix):
        yield _broken_item(index, part.child(child, "prefixItems", index))
    if rest is not None:
        yield _broken_item(len(prefix), part.child(rest, "items"))
    if "contains" in schema and not {"minContains", "maxContains"} & schema.keys():
        yield {"type": "array", "items": part.child(schema["contains"], "contains").opposite()}


def _broken_item(index: int, item: Part) -> Mapping[str, Any]:
    return {"type": "array", "minItems": index + 1, "prefixItems": [True] * index + [item.opposite()]}
