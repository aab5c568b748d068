"""Pieces for arrays and objects: what each item or property must satisfy, as parts; `graph.py` makes nodes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from intaglio.json_schema.combination import ways
from intaglio.json_schema.limits import invalid, not_enforced
from intaglio.json_schema.parts import Expander, Part, count_of
from intaglio.json_schema.pieces import language_of_pattern, string_piece
from intaglio.json_schema.regular import automata, languages
from intaglio.json_schema.regular.automata import TooLargeError
from intaglio.json_schema.regular.languages import ALL, NONE, Language

Parts = tuple[Part, ...]
Of = TypeVar("Of")
_MAX_CLASSES = 32  # of names, by the patterns that they match
_MAX_PREFIX = 2_000


@dataclass(frozen=True, slots=True)
class ArrayPiece(Generic[Of]):
    """prefix: parts of the first items; rest: of the others; unique: where `uniqueItems` stands, or None.

    What an item must satisfy is given by its parts, or by the node of a graph that they became.
    """

    prefix: tuple[Of, ...]
    rest: Of
    low: int
    high: int | None
    unique: str | None
    place: str


@dataclass(frozen=True, slots=True)
class ObjectPiece(Generic[Of]):
    """properties: parts by name, in the schema's order; classes: parts of the other names, by disjoint languages."""

    properties: Mapping[str, Of]
    classes: tuple[tuple[Language, Of], ...]
    other_names: Of
    required: tuple[str, ...]
    low: int
    high: int | None
    place: str


def array_piece(parts: Sequence[Part]) -> ArrayPiece[Parts] | None:
    """None if the lengths contradict each other. Raises GrammarError."""
    low, high, unique = 0, None, None
    shapes = [_items_of(part) for part in parts]
    for part in parts:
        low = max(low, count_of(part.schema, "minItems", part.place) or 0)
        longest = count_of(part.schema, "maxItems", part.place)
        high = longest if high is None else high if longest is None else min(high, longest)
        unique = part.place if part.schema.get("uniqueItems") is True else unique
    if high is not None and low > high:
        return None
    length = max((len(prefix) for prefix, _ in shapes), default=0)
    if length > _MAX_PREFIX:
        raise not_enforced("prefixItems", parts[0].place, f"it has {length} schemas, more than {_MAX_PREFIX}")
    prefix = tuple(
        tuple(child for first, rest in shapes for child in (first[index : index + 1] if index < len(first) else rest))
        for index in range(length)
    )
    rest = tuple(child for _, others in shapes for child in others)
    return ArrayPiece(prefix, rest, low, high, unique, parts[0].place if parts else "#")


def _items_of(part: Part) -> tuple[list[Part], list[Part]]:
    """The schemas of the first items and of the rest."""
    schema = part.schema
    items = schema.get("items")
    if isinstance(items, list | tuple):
        rest = schema.get("additionalItems")
        first = [part.child(child, "items", index) for index, child in enumerate(items)]
        return first, [] if rest is None else [part.child(rest, "additionalItems")]
    prefix = schema.get("prefixItems", ())
    if not isinstance(prefix, list | tuple):
        raise invalid("prefixItems", part.place, "is not an array")
    first = [part.child(child, "prefixItems", index) for index, child in enumerate(prefix)]
    return first, [] if items is None else [part.child(items, "items")]


def object_piece(parts: Sequence[Part], expander: Expander) -> ObjectPiece[Parts] | None:
    """None if the counts contradict each other. Raises GrammarError."""
    low, high = 0, None
    required: dict[str, None] = {}
    names: dict[str, None] = {}
    for part in parts:
        low = max(low, count_of(part.schema, "minProperties", part.place) or 0)
        most = count_of(part.schema, "maxProperties", part.place)
        high = most if high is None else high if most is None else min(high, most)
        required |= dict.fromkeys(_names(part, "required"))
        names |= dict.fromkeys(_mapping(part, "properties"))
    if high is not None and max(low, len(required)) > high:
        return None
    names |= required
    rules = [_Rule(part) for part in parts]
    allowed = _allowed_names(parts, expander)
    properties = {name: _parts_of_name(name, rules, allowed) for name in names}
    place = parts[0].place if parts else "#"
    classes, other = _classes(rules, allowed, names, place)
    if allowed == ALL and low <= len(names) and not any(rule.says_of_others for rule in rules):
        other = _closed(rules) or other
    return ObjectPiece(properties, classes, other, tuple(required), low, high, place)


class _Rule:
    """What one part says of the properties of an object."""

    def __init__(self, part: Part) -> None:
        named = _mapping(part, "properties")
        self.named = {name: part.child(child, "properties", name) for name, child in named.items()}
        self.patterns = [
            (language_of_pattern(part, "patternProperties", pattern), part.child(child, "patternProperties", pattern))
            for pattern, child in _mapping(part, "patternProperties").items()
        ]
        rest = part.schema.get("additionalProperties")
        self.rest = () if rest is None else (part.child(rest, "additionalProperties"),)

    @property
    def says_of_others(self) -> bool:
        """Whether it says something of properties that it does not list."""
        return bool(self.patterns or self.rest)

    def of_name(self, name: str) -> Parts:
        matching = [child for language, child in self.patterns if languages.matches(language, name)]
        if name in self.named:
            return (self.named[name], *matching)
        return tuple(matching) or self.rest

    def of_class(self, matched: frozenset[Language]) -> Parts:
        return tuple(child for language, child in self.patterns if language in matched) or self.rest


def _parts_of_name(name: str, rules: Sequence[_Rule], allowed: Language) -> Parts:
    if not languages.matches(allowed, name):
        return (_NOTHING,)
    return tuple(child for rule in rules for child in rule.of_name(name))


_NOTHING = Part(False, "")


def _closed(rules: Sequence[_Rule]) -> Parts:
    """What properties that nothing is said of may be: none, if others are listed.

    The schema allows them, but a caller that lists properties wants these, and a small model would add others until
    `max_tokens`. Other servers close such objects too. An empty list of properties, and a list of forbidden ones, as a
    negation makes it, close nothing.
    """
    listed = any(child.schema is not False for rule in rules for child in rule.named.values())
    return (_NOTHING,) if listed else ()


def _classes(
    rules: Sequence[_Rule], allowed: Language, names: Mapping[str, None], place: str
) -> tuple[tuple[tuple[Language, Parts], ...], Parts]:
    """Names that are not listed, by the patterns that they match. The last part is of names that match none, if there
    is no other condition on them: they need no language."""
    distinct = list(dict.fromkeys(language for rule in rules for language, _ in rule.patterns))
    if not distinct and allowed == ALL:
        return (), tuple(child for rule in rules for child in rule.rest)
    found: list[tuple[Language, frozenset[Language]]] = [(allowed, frozenset())]
    try:
        for pattern in distinct:
            divided = []
            for language, matched in found:
                inside = languages.both((language, pattern))
                outside = languages.both((language, languages.negated(pattern)))
                divided += [(inside, matched | {pattern})] if not automata.is_empty(inside) else []
                divided += [(outside, matched)] if not automata.is_empty(outside) else []
            found = divided
            if len(found) > _MAX_CLASSES:
                raise TooLargeError
    except TooLargeError:
        raise not_enforced("patternProperties", place, "its patterns overlap in too many ways") from None
    classes = [
        (_without(language, names), tuple(child for rule in rules for child in rule.of_class(matched)))
        for language, matched in found
        if matched or allowed != ALL
    ]
    rest = next((matched for _, matched in found if not matched), None)
    if allowed != ALL or rest is None:
        return tuple(classes), (_NOTHING,)
    return tuple(classes), tuple(child for rule in rules for child in rule.of_class(frozenset()))


def _without(language: Language, names: Mapping[str, None]) -> Language:
    listed = [languages.text(name) for name in names if languages.matches(language, name)]
    return languages.both((language, languages.negated(languages.union(listed)))) if listed else language


def _allowed_names(parts: Sequence[Part], expander: Expander) -> Language:
    """The names that `propertyNames` allows."""
    limited = [part for part in parts if "propertyNames" in part.schema]
    conditions = [part.child(part.schema["propertyNames"], "propertyNames") for part in limited]
    if not conditions:
        return ALL
    found = []
    for way in ways(conditions, expander):
        piece = string_piece(way.parts) if "string" in way.types else None
        if piece is None:
            continue
        if piece.formats or piece.verbatim:
            reason = "names have a format" if piece.formats else "names have a pattern with a Unicode property"
            raise not_enforced("propertyNames", limited[0].place, reason)
        if piece.literals is not None:
            found.append(languages.union(languages.text(literal) for literal in piece.literals))
        else:
            length = languages.repeat(languages.ANY_CHARACTER, piece.low, piece.high)
            found.append(languages.both((*piece.languages, length)))
    return languages.union(found) if found else NONE


def _names(part: Part, keyword: str) -> list[str]:
    names: Any = part.schema.get(keyword, ())
    if isinstance(names, bool) and keyword == "required":  # draft 3
        raise not_enforced("required", part.place, "it is a boolean, as in draft 3; draft 4 and later list the names")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise invalid(keyword, part.place, "is not an array of names")
    return list(names)


def _mapping(part: Part, keyword: str) -> Mapping[str, Any]:
    found = part.schema.get(keyword, {})
    if not isinstance(found, Mapping):
        raise invalid(keyword, part.place, "is not an object")
    return found
