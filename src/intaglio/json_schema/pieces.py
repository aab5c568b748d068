"""What values of one type a set of basic parts allows: a piece for each type, with the keywords of all parts joined."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from intaglio.json_schema.limits import invalid, not_enforced
from intaglio.json_schema.parts import Part, count_of, type_of
from intaglio.json_schema.regular import characters, languages, patterns
from intaglio.json_schema.regular.languages import ALL, Language
from intaglio.json_schema.regular.patterns import PatternError

# Formats that the grammar library enforces. All others are annotations: they say nothing of the text.
ENFORCED_FORMATS = frozenset({
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class BooleanPiece:
    values: frozenset[bool]


@dataclass(frozen=True, slots=True)
class NullPiece:
    pass


@dataclass(frozen=True, slots=True)
class NumberPiece:
    """Numbers within bounds; `values` are the only ones, if not None."""

    integer: bool
    low: float | int | None
    low_open: bool
    high: float | int | None
    high_open: bool
    multiples: tuple[float | int, ...]
    values: tuple[float | int, ...] | None
    place: str


@dataclass(frozen=True, slots=True)
class StringPiece:
    """Strings in all of the languages; `literals` are the only ones, if not None."""

    literals: tuple[str, ...] | None
    languages: tuple[Language, ...]
    verbatim: tuple[str, ...]
    formats: tuple[str, ...]
    low: int
    high: int | None
    place: str


def boolean_piece(parts: Sequence[Part]) -> BooleanPiece | None:
    values = {True, False}
    for _, listed in _enumerations(parts):
        values &= {value for value in listed if isinstance(value, bool)}
    return BooleanPiece(frozenset(values)) if values else None


def number_piece(parts: Sequence[Part], integer: bool) -> NumberPiece | None:
    """None if no number is left. Raises GrammarError."""
    low, low_open, high, high_open = None, False, None, False
    multiples: list[float | int] = []
    for part in parts:
        for bound, is_open in _lower(part):
            if low is None or (bound, is_open) > (low, low_open):
                low, low_open = bound, is_open
        for bound, is_open in _upper(part):
            if high is None or (-bound, is_open) > (-high, high_open):
                high, high_open = bound, is_open
        divisor = _number(part, "multipleOf")
        if divisor is not None and divisor <= 0:
            raise invalid("multipleOf", part.place, f"is {divisor!r}; it must be more than 0")
        if divisor is not None:
            multiples.append(divisor)
    place = parts[0].place if parts else "#"
    piece = NumberPiece(integer, low, low_open, high, high_open, tuple(multiples), None, place)
    listed = [[value for value in values if _is_number(value)] for _, values in _enumerations(parts)]
    if listed:
        kept = [v for v in dict.fromkeys(listed[0]) if all(v in others for others in listed) and _fits(v, piece)]
        return NumberPiece(integer, low, low_open, high, high_open, (), tuple(kept), piece.place) if kept else None
    return None if low is not None and high is not None and _crossed(piece) else piece


def string_piece(parts: Sequence[Part]) -> StringPiece | None:
    """None if no string is left, as far as that can be told. Raises GrammarError."""
    low, high = 0, None
    found: list[Language] = []
    verbatim: list[str] = []
    formats: list[str] = []
    for part in parts:
        low = max(low, _count(part, "minLength") or 0)
        longest = _count(part, "maxLength")
        high = longest if high is None else high if longest is None else min(high, longest)
        found += _pattern_languages(part, verbatim)
        kind = part.schema.get("format")
        if isinstance(kind, str) and kind in ENFORCED_FORMATS:
            formats.append(kind)
    if high is not None and low > high:
        return None
    listed = [[value for value in values if isinstance(value, str)] for _, values in _enumerations(parts)]
    literals = None
    if listed:
        kept = dict.fromkeys(listed[0])
        if verbatim:
            raise not_enforced("pattern", parts[0].place, "it stands beside enum or const and has a Unicode property")
        allowed = set(listed[0]).intersection(*listed[1:])
        literals = tuple(
            text for text in kept
            if text in allowed and _is_writable(text) and low <= len(text) and (high is None or len(text) <= high)
            and all(languages.matches(language, text) for language in found)
        )  # fmt: skip
        if not literals:
            return None
        return StringPiece(literals, (), (), tuple(dict.fromkeys(formats)), 0, None, parts[0].place)
    kept_languages = tuple(dict.fromkeys(language for language in found if language != ALL))
    place = next((part.place for part in parts if "pattern" in part.schema), parts[0].place if parts else "#")
    return StringPiece(
        None, kept_languages, tuple(dict.fromkeys(verbatim)), tuple(dict.fromkeys(formats)), low, high, place
    )


def _is_writable(text: str) -> bool:
    return all(characters.contains(characters.WRITABLE, ord(character)) for character in text)


def language_of_pattern(part: Part, keyword: str, pattern: object) -> Language:
    """Raises GrammarError."""
    if not isinstance(pattern, str):
        raise invalid(keyword, part.place, "is not a string")
    try:
        return patterns.language_of(pattern)
    except PatternError as error:
        raise not_enforced(keyword, part.place, f"the pattern {pattern[:100]!r} {error}") from error


def _pattern_languages(part: Part, verbatim: list[str]) -> Iterator[Language]:
    schema = part.schema
    if "pattern" in schema:
        pattern = schema["pattern"]
        if isinstance(pattern, str) and _is_left_to_the_library(pattern):
            verbatim.append(pattern)
        else:
            yield language_of_pattern(part, "pattern", pattern)
    if "not pattern" in schema:
        yield languages.negated(language_of_pattern(part, "pattern", schema["not pattern"]))
    if "not literals" in schema:
        yield languages.negated(languages.union(languages.text(text) for text in schema["not literals"]))


def _is_left_to_the_library(pattern: str) -> bool:
    """Whether a pattern has Unicode properties (scripts, emoji) and no look-ahead: they are long classes here."""
    return re.search(r"\\[pP]", pattern) is not None and "(?" not in pattern.replace("(?:", "")


def enumerated(parts: Sequence[Part]) -> bool:
    return next(_enumerations(parts), None) is not None


def _enumerations(parts: Sequence[Part]) -> Iterator[tuple[Part, list[Any]]]:
    for part in parts:
        if "enum" in part.schema:
            yield part, list(part.schema["enum"])
        if "const" in part.schema:
            yield part, [part.schema["const"]]


def _lower(part: Part) -> Iterator[tuple[float | int, bool]]:
    yield from _bounds(part, "minimum", "exclusiveMinimum")


def _upper(part: Part) -> Iterator[tuple[float | int, bool]]:
    yield from _bounds(part, "maximum", "exclusiveMaximum")


def _bounds(part: Part, keyword: str, strict: str) -> Iterator[tuple[float | int, bool]]:
    exclusive = part.schema.get(strict)
    bound = _number(part, keyword)
    if bound is not None:
        yield bound, exclusive is True  # a boolean in draft 4
    if exclusive is not None and not isinstance(exclusive, bool):
        limit = _number(part, strict)
        if limit is not None:
            yield limit, True


def _number(part: Part, keyword: str) -> float | int | None:
    value = part.schema.get(keyword)
    if value is None:
        return None
    if not _is_number(value) or (isinstance(value, float) and not math.isfinite(value)):
        raise invalid(keyword, part.place, "is not a number")
    if abs(value) > 10**300:
        raise not_enforced(keyword, part.place, "the number is too large")
    return value  # type: ignore[no-any-return]


def _count(part: Part, keyword: str) -> int | None:
    return count_of(part.schema, keyword, part.place)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fits(value: float | int, piece: NumberPiece) -> bool:
    if piece.low is not None and (value < piece.low or (piece.low_open and value == piece.low)):
        return False
    if piece.high is not None and (value > piece.high or (piece.high_open and value == piece.high)):
        return False
    if piece.integer and type_of(value) != "integer":
        return False
    return all(Fraction(str(value)) % Fraction(str(divisor)) == 0 for divisor in piece.multiples)


def _crossed(piece: NumberPiece) -> bool:
    assert piece.low is not None
    assert piece.high is not None
    return piece.low > piece.high or (piece.low == piece.high and (piece.low_open or piece.high_open))
