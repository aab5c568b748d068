"""Regular languages of texts: union, intersection, complement, and derivatives by a character.

A language is an immutable term, simplified as it is built, so equal terms are mostly the same language; the derivatives
of a term are therefore finitely many, and are the states of its automaton (`automata.py`).

Source: Brzozowski, Derivatives of Regular Expressions (1964); Owens, Reppy, Turon, Regular-expression derivatives
re-examined (2009).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from intaglio.json_schema.regular import characters
from intaglio.json_schema.regular.characters import Characters

_KINDS = ("none", "empty", "set", "concat", "union", "both", "not", "repeat")


@dataclass(frozen=True, slots=True)
class Language:
    """A term. Build it with the functions of this module.

    kind      "none", "empty", "set", "concat", "union", "both", "not" or "repeat"
    parts     terms that it is made of
    symbols   of a set
    bounds    of a repetition; None has no upper one
    nullable  whether the empty text belongs to it
    """

    kind: str
    parts: tuple[Language, ...] = ()
    symbols: Characters = ()
    bounds: tuple[int, int | None] = (1, 1)
    nullable: bool = False
    _hash: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        # Of integers only, so that the order of parts is the same in every process.
        low, high = self.bounds
        members = tuple(part._hash for part in self.parts)
        numbers = (_KINDS.index(self.kind), members, self.symbols, low, -1 if high is None else high)
        object.__setattr__(self, "_hash", hash(numbers))

    def __hash__(self) -> int:
        return self._hash


NONE = Language("none")  # no text at all
EMPTY = Language("empty", nullable=True)  # the empty text
ANY_CHARACTER = Language("set", symbols=characters.ALL)
ALL = Language("repeat", (ANY_CHARACTER,), bounds=(0, None), nullable=True)


def one_of(symbols: Characters) -> Language:
    return Language("set", symbols=symbols) if symbols else NONE


def text(content: str) -> Language:
    return concat(*(one_of(((ord(character), ord(character)),)) for character in content))


def concat(*parts: Language) -> Language:
    result = EMPTY
    for part in reversed(parts):
        result = _concat(part, result)
    return result


def _concat(left: Language, right: Language) -> Language:
    if NONE in (left, right):
        return NONE
    if EMPTY in (left, right):
        return right if left == EMPTY else left
    if left.kind == "concat":
        return _concat(left.parts[0], _concat(left.parts[1], right))
    if left == ALL and (right == ALL or (right.kind == "concat" and right.parts[0] == ALL)):
        return right
    return Language("concat", (left, right), nullable=left.nullable and right.nullable)


def union(parts: Iterable[Language]) -> Language:
    members: dict[Language, None] = {}
    symbols: Characters = ()
    for part in _flat("union", parts):
        if part == ALL:
            return ALL
        if part.kind == "set":
            symbols = characters.union(symbols, part.symbols)
        elif part != NONE:
            members[part] = None
    if symbols:
        members[one_of(symbols)] = None
    if EMPTY in members and any(member.nullable for member in members if member != EMPTY):
        del members[EMPTY]
    if len(members) < 2:
        return next(iter(members), NONE)
    chosen = tuple(sorted(members, key=hash))
    return Language("union", chosen, nullable=any(member.nullable for member in chosen))


def both(parts: Iterable[Language]) -> Language:
    """The texts that are in all of the languages."""
    members: dict[Language, None] = {}
    symbols: Characters | None = None
    for part in _flat("both", parts):
        if part == NONE:
            return NONE
        if part.kind == "set":
            symbols = part.symbols if symbols is None else characters.intersection(symbols, part.symbols)
        elif part != ALL:
            members[part] = None
    if symbols is not None:
        members[one_of(symbols)] = None
    if NONE in members:
        return NONE
    if EMPTY in members:
        return EMPTY if all(member.nullable for member in members) else NONE
    if len(members) < 2:
        return next(iter(members), ALL)
    chosen = tuple(sorted(members, key=hash))
    return Language("both", chosen, nullable=all(member.nullable for member in chosen))


def negated(part: Language) -> Language:
    """The texts that are not in the language."""
    if part.kind == "not":
        return part.parts[0]
    if part == NONE:
        return ALL
    if part == ALL:
        return NONE
    return Language("not", (part,), nullable=not part.nullable)


def repeat(part: Language, low: int, high: int | None) -> Language:
    if high == 0 or part == EMPTY or (part == NONE and low == 0):
        return EMPTY
    if part == NONE or (low, high) == (1, 1):
        return part
    if part.nullable:
        low = 0
    if part.kind == "repeat" and part.bounds == (0, None):
        return part
    if high is None and part.kind == "repeat" and part.bounds[0] <= 1 and part.bounds[1] is None:
        return repeat(part.parts[0], min(low, part.bounds[0]), None)
    return Language("repeat", (part,), bounds=(low, high), nullable=low == 0 or part.nullable)


@lru_cache(maxsize=50_000)
def derivative(of: Language, code: int) -> Language:
    """What may follow the character in the texts that begin with it."""
    if of.kind in ("none", "empty"):
        return NONE
    if of.kind == "set":
        return EMPTY if characters.contains(of.symbols, code) else NONE
    if of.kind == "concat":
        first, rest = of.parts
        after = _concat(derivative(first, code), rest)
        return union((after, derivative(rest, code))) if first.nullable else after
    if of.kind == "repeat":
        low, high = of.bounds
        left = repeat(of.parts[0], max(low - 1, 0), None if high is None else high - 1)
        return _concat(derivative(of.parts[0], code), left)
    if of.kind == "not":
        return negated(derivative(of.parts[0], code))
    parts = (derivative(part, code) for part in of.parts)
    return union(parts) if of.kind == "union" else both(parts)


def matches(language: Language, content: str) -> bool:
    """Whether the text belongs to the language."""
    for character in content:
        language = derivative(language, ord(character))
        if language in (NONE, ALL):
            break
    return language.nullable


@lru_cache(maxsize=50_000)
def boundaries(of: Language) -> frozenset[int]:
    """Code points at which the derivative may change, going up: between two of them it is the same."""
    if of.kind == "set":
        return frozenset(point for first, last in of.symbols for point in (first, last + 1))
    if of.kind == "concat" and not of.parts[0].nullable:
        return boundaries(of.parts[0])
    return frozenset(point for part in of.parts for point in boundaries(part))


def restricted(language: Language, symbols: Characters) -> Language:
    """The texts of the language that consist of these characters. The language has no intersection and complement."""
    if language.kind == "set":
        return one_of(characters.intersection(language.symbols, symbols))
    parts = [restricted(part, symbols) for part in language.parts]
    if language.kind == "concat":
        return concat(*parts)
    if language.kind == "union":
        return union(parts)
    return repeat(parts[0], *language.bounds) if language.kind == "repeat" else language


def _flat(kind: str, parts: Iterable[Language]) -> Iterable[Language]:
    for part in parts:
        if part.kind == kind:
            yield from part.parts
        else:
            yield part
