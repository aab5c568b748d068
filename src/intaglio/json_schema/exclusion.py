"""`oneOf`: alternatives of which exactly one holds. Where two exclude each other already, as tagged unions do, nothing
is added; otherwise each alternative is joined with the negation of the others that overlap with it."""

from __future__ import annotations

from collections.abc import Sequence

from intaglio.errors import GrammarError
from intaglio.json_schema.combination import Way, ways
from intaglio.json_schema.limits import not_enforced
from intaglio.json_schema.members import array_piece, object_piece
from intaglio.json_schema.parts import Choice, Expander, Part
from intaglio.json_schema.pieces import NumberPiece, StringPiece, boolean_piece, number_piece, string_piece
from intaglio.json_schema.regular import automata, languages
from intaglio.json_schema.regular.automata import TooLargeError

_MAX_DEPTH = 4  # of properties in which a difference is looked for
_MAX_PAIRS = 2_500  # of ways
_MAX_ONE_OF = 150


def exclusive(choice: Choice, part: Part, expander: Expander) -> Choice:
    """The alternatives of the `oneOf` of `part`, each with what excludes the others. Raises GrammarError."""
    if len(choice) > _MAX_ONE_OF:
        raise not_enforced("oneOf", part.place, f"it has {len(choice)} alternatives, more than {_MAX_ONE_OF}")
    extra: list[list[Part]] = [[] for _ in choice]
    for index, first in enumerate(choice):
        for other in range(index + 1, len(choice)):
            if not apart(first, choice[other], expander, _MAX_DEPTH):
                extra[index].append(choice[other][0].opposite())
                extra[other].append(first[0].opposite())
    try:
        for added in extra:
            for negated in added:
                expander.expand(negated)
    except GrammarError as error:
        raise not_enforced("oneOf", part.place, f"several of its alternatives may hold at once ({error})") from error
    return [(*alternative, *added) for alternative, added in zip(choice, extra, strict=True)]


def apart(first: Sequence[Part], second: Sequence[Part], expander: Expander, depth: int) -> bool:
    """Whether certainly no value satisfies both."""
    if depth == 0:
        return False
    left, right = ways(first, expander), ways(second, expander)
    if len(left) * len(right) > _MAX_PAIRS:
        return False
    return all(_ways_apart(one, other, expander, depth) for one in left for other in right)


def _ways_apart(one: Way, other: Way, expander: Expander, depth: int) -> bool:
    expander.budget.step(one.parts[0].place if one.parts else "#")
    common = one.types & other.types
    if "null" in common:
        return False
    if "boolean" in common and boolean_piece((*one.parts, *other.parts)) is not None:
        return False
    if {"integer", "fraction"} & common:
        joined = number_piece((*one.parts, *other.parts), integer="fraction" not in common)
        if joined is not None and not _is_none(joined):
            return False
    if "string" in common and not _strings_apart(string_piece((*one.parts, *other.parts))):
        return False
    if "array" in common and not _arrays_apart(one, other, expander, depth):
        return False
    return "object" not in common or _objects_apart(one, other, expander, depth)


def _is_none(piece: NumberPiece) -> bool:
    return piece.values is not None and not piece.values


def _strings_apart(joined: StringPiece | None) -> bool:
    if joined is None:
        return True
    if joined.literals is not None or not joined.languages:
        return False
    length = languages.repeat(languages.ANY_CHARACTER, joined.low, joined.high)
    try:
        return automata.is_empty(languages.both((*joined.languages, length)))
    except TooLargeError:
        return False


def _arrays_apart(one: Way, other: Way, expander: Expander, depth: int) -> bool:
    joined = array_piece((*one.parts, *other.parts))
    if joined is None:
        return True
    left, right = array_piece(one.parts), array_piece(other.parts)
    if left is None or right is None:
        return True
    for index in range(min(joined.low, 8)):
        items = [piece.prefix[index] if index < len(piece.prefix) else piece.rest for piece in (left, right)]
        if apart(items[0], items[1], expander, depth - 1):
            return True
    return False


def _objects_apart(one: Way, other: Way, expander: Expander, depth: int) -> bool:
    joined = object_piece((*one.parts, *other.parts), expander)
    if joined is None:
        return True
    for name in joined.required:
        required = Part({"required": [name]}, "#")  # so that the pieces say what the property must satisfy
        left, right = (object_piece((*way.parts, required), expander) for way in (one, other))
        if left is None or right is None:
            return True
        if apart(left.properties[name], right.properties[name], expander, depth - 1):
            return True
    return False
