"""Subschemas that a value must satisfy, or must not, and what their applicators (`$ref`, `allOf`, `anyOf`, `if`, ...)
say: further subschemas, and choices between some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intaglio.json_schema.limits import Budget, invalid, not_enforced
from intaglio.json_schema.references import References

TYPES = frozenset({"null", "boolean", "integer", "fraction", "string", "array", "object"})
_TYPES_OF = {"number": {"integer", "fraction"}, **{name: {name} for name in TYPES - {"fraction"}}}

# Keywords that say something of one value and its members: `pieces.py` reads them.
BASIC = frozenset({
    "type", "enum", "const", "properties", "patternProperties", "additionalProperties", "required", "minProperties",
    "maxProperties", "propertyNames", "items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems",
    "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "not literals", "not pattern",
})  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A subschema.

    schema   a mapping or a boolean; a mapping made here may have parts as its members
    place    its JSON pointer, for messages
    negated  whether the value must not satisfy it
    """

    schema: Any
    place: str
    negated: bool = False

    @property
    def key(self) -> tuple[int, bool]:
        return id(self.schema), self.negated

    def child(self, schema: Any, *steps: object) -> Part:
        """A subschema of this one."""
        if isinstance(schema, Part):
            return schema
        where = "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)
        return Part(schema, self.place + where)

    def opposite(self) -> Part:
        return Part(self.schema, self.place, not self.negated)

    def made(self, schema: Mapping[str, Any]) -> Part:
        """A subschema that stands for something this one says."""
        return Part(schema, self.place)


Choice = list[tuple[Part, ...]]  # alternatives, each of parts that are satisfied together


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a part says: `impossible`, or `basic` (it has basic keywords), all of `parts`, and one of each choice."""

    basic: Part | None = None
    parts: tuple[Part, ...] = ()
    choices: tuple[Choice, ...] = ()
    impossible: bool = False


def types_of(schema: Mapping[str, Any], place: str) -> frozenset[str]:
    """The types that `type`, `enum` and `const` leave."""
    named = schema.get("type")
    found: set[str] = set()
    if named is None:
        found |= TYPES
    for name in [named] if isinstance(named, str) else named or ():
        if name not in _TYPES_OF:
            raise invalid("type", place, f"names {str(name)[:40]!r}, which is no type of JSON")
        found |= _TYPES_OF[name]
    for keyword, values in (("enum", schema.get("enum")), ("const", [schema["const"]] if "const" in schema else None)):
        if values is not None:
            if not isinstance(values, list | tuple):
                raise invalid(keyword, place, "is not an array")
            found &= {type_of(value) for value in values}
    return frozenset(found)


def type_of(value: object) -> str:
    """The type of a JSON value; a number without a fractional part is an integer."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) or value.is_integer() else "fraction"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list | tuple) else "object"


def count_of(schema: Mapping[str, Any], keyword: str, place: str) -> int | None:
    """A keyword whose value is a number of things. Raises GrammarError."""
    value = schema.get(keyword)
    if value is None:
        return None
    if type_of(value) != "integer" or value < 0:
        raise invalid(keyword, place, "is not a number from 0 upwards")
    return int(value)


class Expander:
    """Expands parts, each once.

    negation     the expansion of a negated part
    exclusive    the alternatives of a oneOf, each of which excludes the others
    unevaluated  an expansion with what `unevaluatedProperties` and `unevaluatedItems` of the part add to it
    """

    def __init__(
        self,
        references: References,
        budget: Budget,
        negation: Callable[[Part, Expander], Expansion],
        exclusive: Callable[[Choice, Part, Expander], Choice],
        unevaluated: Callable[[Part, Expansion, Expander], Expansion],
    ) -> None:
        self.references = references
        self.budget = budget
        self._negation = negation
        self._exclusive = exclusive
        self._unevaluated = unevaluated
        self._expansions: dict[tuple[int, bool], Expansion] = {}
        self._kept: list[Part] = []  # a key is an id, so schemas made here must live as long

    def expand(self, part: Part) -> Expansion:
        """What the part says. Raises GrammarError naming a keyword that cannot be enforced."""
        self.budget.step(part.place)
        if part.key not in self._expansions:
            self._kept.append(part)
            if isinstance(part.schema, bool):
                self._expansions[part.key] = Expansion(impossible=part.schema == part.negated)
            elif not isinstance(part.schema, Mapping):
                raise invalid(part.place.rpartition("/")[2], part.place, "is not a schema")
            else:
                self._expansions[part.key] = self._negation(part, self) if part.negated else self._positive(part)
        return self._expansions[part.key]

    def target(self, part: Part) -> Part:
        """The schema that the part's reference names."""
        schema = part.schema
        keyword = next(name for name in ("$ref", "$recursiveRef", "$dynamicRef") if name in schema)
        reference = schema[keyword]
        if keyword == "$recursiveRef" and self.references.has_recursive_anchor:
            raise not_enforced(keyword, part.place, "its target depends on the way to it")
        if keyword == "$dynamicRef" and self.references.dynamic_anchors.count(str(reference).partition("#")[2]) > 1:
            raise not_enforced(keyword, part.place, "its target depends on the way to it")
        found = Part(*self.references.resolve(reference, schema, part.place))
        self._check_end(found, part, keyword)
        return found

    def _check_end(self, target: Part, part: Part, keyword: str) -> None:
        """Refuse references that lead to each other in a circle."""
        passed = {id(part.schema)}
        while isinstance(target.schema, Mapping) and isinstance(target.schema.get("$ref"), str):
            if id(target.schema) in passed:
                raise not_enforced(keyword, part.place, "it leads back to itself")
            passed.add(id(target.schema))
            target = Part(*self.references.resolve(target.schema["$ref"], target.schema, target.place))

    def has_reference(self, schema: Mapping[str, Any]) -> bool:
        return any(isinstance(schema.get(name), str) for name in ("$ref", "$recursiveRef", "$dynamicRef"))

    def _positive(self, part: Part) -> Expansion:
        schema = part.schema
        if self.has_reference(schema) and self.references.is_old:
            return Expansion(parts=(self.target(part),))  # drafts up to 7 ignore what stands beside it
        parts: list[Part] = [self.target(part)] if self.has_reference(schema) else []
        parts += [part.child(child, "allOf", index) for index, child in enumerate(_listed(part, "allOf"))]
        if "not" in schema:
            parts.append(part.child(schema["not"], "not").opposite())
        choices = [*self._alternatives(part), *_conditions(part), *_contained(part, self), *_composite_values(part)]
        basic = part if BASIC & schema.keys() else None
        return self._unevaluated(part, Expansion(basic, tuple(parts), tuple(choices)), self)

    def _alternatives(self, part: Part) -> list[Choice]:
        choices = []
        tag = part.schema.get("discriminator")
        tag = tag.get("propertyName") if isinstance(tag, Mapping) else tag
        for keyword in ("anyOf", "oneOf"):
            listed = [part.child(child, keyword, index) for index, child in enumerate(_listed(part, keyword))]
            if keyword not in part.schema:
                continue
            tagged: Choice = [(child,) for child in listed]
            if isinstance(tag, str):
                required = part.made({"required": [tag]})
                tagged = [(child, required) for child in listed]
            choices.append(self._exclusive(tagged, part, self) if keyword == "oneOf" else tagged)
        return choices


def _listed(part: Part, keyword: str) -> Sequence[Any]:
    found = part.schema.get(keyword, ())
    if not isinstance(found, list | tuple):
        raise invalid(keyword, part.place, "is not an array")
    return found


def _conditions(part: Part) -> list[Choice]:
    schema = part.schema
    choices: list[Choice] = []
    if "if" in schema and ("then" in schema or "else" in schema):
        condition = part.child(schema["if"], "if")
        then, otherwise = (part.child(schema.get(name, True), name) for name in ("then", "else"))
        choices.append([(condition, then), (condition.opposite(), otherwise)])
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        given = schema.get(keyword, {})
        if not isinstance(given, Mapping):
            raise invalid(keyword, part.place, "is not an object")
        for name, wanted in given.items():
            absent = part.made({"properties": {name: False}})
            present: tuple[Part, ...]
            if isinstance(wanted, list | tuple):
                present = (part.made({"type": "object", "required": [name, *wanted]}),)
            else:
                needed = part.made({"type": "object", "required": [name]})
                present = (needed, part.child(wanted, keyword, name))
            choices.append([present, (absent,)])
    return choices


_PLACES_OF_CONTAINED = 4


def _contained(part: Part, expander: Expander) -> list[Choice]:
    """`contains`: the items that fit stand together, beginning at one of the first places."""
    schema = part.schema
    if "contains" not in schema:
        return []
    low, high = (count_of(schema, name, part.place) for name in ("minContains", "maxContains"))
    low = 1 if low is None else low
    if expander.references.draft < 2019:
        low, high = 1, None
    if low > 100:
        raise not_enforced("contains", part.place, f"minContains is {low!r} and maxContains {high!r}")
    item = part.child(schema["contains"], "contains")
    others = part.made({"type": sorted(_NAMES - {"array"})})
    if high is None:
        if low == 0:
            return []
        fits = [
            part.made({"type": "array", "minItems": at + low, "prefixItems": [True] * at + [item] * low})
            for at in range(_PLACES_OF_CONTAINED)
        ]
    else:
        fits = [
            part.made({"type": "array", "minItems": count, "prefixItems": [item] * count, "items": item.opposite()})
            for count in range(low, min(high, low + 16) + 1)
        ]
    choice: Choice = [(fit,) for fit in (*fits, others)]
    return [choice]


_NAMES = frozenset({"null", "boolean", "number", "string", "array", "object"})


def _composite_values(part: Part) -> list[Choice]:
    """Arrays and objects among the values of `enum` and `const`, as schemas of their own."""
    choices = []
    for keyword in ("enum", "const"):
        if keyword not in part.schema:
            continue
        values = part.schema[keyword] if keyword == "enum" else [part.schema[keyword]]
        composite = [value for value in values if type_of(value) in ("array", "object")]
        if composite:
            scalars = [value for value in values if type_of(value) not in ("array", "object")]
            choice: Choice = [(part.made(_exactly(value)),) for value in composite]
            choices.append([*choice, (part.made({"enum": scalars}),)] if scalars else choice)
    return choices


def _exactly(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return {
            "type": "object", "properties": {name: _exactly(member) for name, member in value.items()},
            "required": list(value), "additionalProperties": False,
        }  # fmt: skip
    if isinstance(value, list | tuple):
        length = {"minItems": len(value), "maxItems": len(value)}
        return {"type": "array", "prefixItems": [_exactly(member) for member in value], **length}
    return {"const": value}
