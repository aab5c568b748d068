"""`unevaluatedProperties` and `unevaluatedItems`: what they forbid depends on which alternatives hold.

A value is evaluated by the schema itself, by those that it always applies (`$ref`, `allOf`), and by every alternative
(`anyOf`, `oneOf`, `if`, ...) that holds. So all alternatives become combinations, and in each the schema is closed but
for what the parts that certainly hold in it evaluate. An alternative that holds by chance evaluates more than that: the
schema is then narrower than it says, never wider.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from intaglio.json_schema.limits import not_enforced
from intaglio.json_schema.parts import Choice, Expander, Expansion, Part

_KEYWORDS = ("unevaluatedProperties", "unevaluatedItems")
_MAX_COMBINATIONS = 64
_MAX_TOGETHER = 3  # alternatives of one choice that may also hold together
_MAX_DEPTH = 20  # of schemas that apply to one value


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """What is evaluated if all of `held` hold.

    names, patterns  of properties
    prefix           the first items
    all_properties   also those without a name here
    all_items        also those after the first
    """

    held: tuple[Part, ...] = ()
    names: Mapping[str, bool] = field(default_factory=dict)
    patterns: Mapping[str, bool] = field(default_factory=dict)
    prefix: int = 0
    all_properties: bool = False
    all_items: bool = False

    def and_also(self, other: _Evaluated) -> _Evaluated:
        return _Evaluated(
            (*self.held, *other.held),
            {**self.names, **other.names},
            {**self.patterns, **other.patterns},
            max(self.prefix, other.prefix),
            self.all_properties or other.all_properties,
            self.all_items or other.all_items,
        )


def unevaluated(part: Part, expansion: Expansion, expander: Expander) -> Expansion:
    """The expansion of the part, closed as these keywords say. Raises GrammarError naming what cannot be enforced."""
    keywords = [keyword for keyword in _KEYWORDS if keyword in part.schema]
    if not keywords or expander.references.draft < 2019:
        return expansion
    combinations = _Combinations(part, keywords[0], expander).of_schema(part, expansion, 0)
    choice: Choice = [(*found.held, *_closed(part, keywords, found)) for found in combinations]
    if len(choice) == 1:
        return Expansion(expansion.basic, (*expansion.parts, *choice[0]), ())
    return Expansion(expansion.basic, expansion.parts, (choice,))


def _closed(part: Part, keywords: Sequence[str], found: _Evaluated) -> Iterable[Part]:
    if "unevaluatedProperties" in keywords and not found.all_properties:
        rest = part.child(part.schema["unevaluatedProperties"], "unevaluatedProperties")
        named = {"properties": found.names, "patternProperties": found.patterns}
        yield part.made({**named, "additionalProperties": rest})
    if "unevaluatedItems" in keywords and not found.all_items:
        rest = part.child(part.schema["unevaluatedItems"], "unevaluatedItems")
        yield part.made({"prefixItems": [True] * found.prefix, "items": rest})


class _Combinations:
    """Which alternatives may hold together, and what they evaluate, for one schema with such a keyword."""

    def __init__(self, part: Part, keyword: str, expander: Expander) -> None:
        self._place, self._keyword, self._expander = part.place, keyword, expander
        self._is_of_items = "unevaluatedItems" in part.schema

    def of_schema(self, part: Part, expansion: Expansion, depth: int) -> list[_Evaluated]:
        if depth > _MAX_DEPTH:
            raise not_enforced(self._keyword, self._place, "schemas that apply to its value lead back to each other")
        found = [self._own(part, depth)]
        for always in expansion.parts:
            found = self._joined(found, self._of_part(always, depth))
        for choice in expansion.choices:
            found = self._joined(found, self._of_choice(choice, depth))
        return found

    def _of_part(self, part: Part, depth: int) -> list[_Evaluated]:
        if part.negated or not isinstance(part.schema, Mapping):
            return [_Evaluated()]
        return self.of_schema(part, self._expander.expand(part), depth + 1)

    def _of_choice(self, choice: Choice, depth: int) -> list[_Evaluated]:
        found = []
        most = len(choice) if len(choice) <= _MAX_TOGETHER else 1
        for size in range(1, most + 1):
            for together in itertools.combinations(choice, size):
                held = tuple(part for alternative in together for part in alternative)
                evaluated = [_Evaluated(held)]
                for part in held:
                    evaluated = self._joined(evaluated, self._of_part(part, depth))
                found += evaluated
        return found

    def _joined(self, left: Sequence[_Evaluated], right: Sequence[_Evaluated]) -> list[_Evaluated]:
        if len(left) * len(right) > _MAX_COMBINATIONS:
            reason = f"more than {_MAX_COMBINATIONS} combinations of alternatives may hold beside it"
            raise not_enforced(self._keyword, self._place, reason)
        return [one.and_also(other) for one in left for other in right]

    def _own(self, part: Part, depth: int) -> _Evaluated:
        """What the schema's own keywords evaluate. Schemas that were made here say nothing: they stand for others."""
        schema: Mapping[str, Any] = part.schema
        if not self._expander.references.holds(schema):
            return _Evaluated()
        if self._is_of_items and "contains" in schema:
            raise not_enforced("unevaluatedItems", self._place, 'it stands beside "contains"')
        items, prefix = schema.get("items"), schema.get("prefixItems", ())
        is_listed = isinstance(items, list | tuple)
        return _Evaluated(
            names=dict.fromkeys(schema.get("properties", {}), True),
            patterns=dict.fromkeys(schema.get("patternProperties", {}), True),
            prefix=len(items) if isinstance(items, list | tuple) else len(prefix),
            all_properties="additionalProperties" in schema or (depth > 0 and "unevaluatedProperties" in schema),
            all_items=(items is not None and not is_listed)
            or (is_listed and "additionalItems" in schema)
            or (depth > 0 and "unevaluatedItems" in schema),
        )
