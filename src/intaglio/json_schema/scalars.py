"""Schemas of strings and numbers in keywords that the grammar library takes literally."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from intaglio.json_schema.limits import not_enforced
from intaglio.json_schema.pieces import NumberPiece, StringPiece
from intaglio.json_schema.regular import automata
from intaglio.json_schema.regular.automata import TooLargeError

# Of a number without bounds: a model cannot write digits without end.
_LARGEST_INTEGER = 10**18 - 1
_LARGEST_NUMBER = 1e15
_DECIMALS = 1e-9
_EXACT = 2**63 - 1024  # the largest integer of the library's arithmetic

# Of the library's formats: what it would allow although no such date exists, and digits without end.
_LEAP = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = rf"(?:[0-9]{{4}}-(?:[0-9]{{2}}-(?:[01][0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|3[01]))|{_LEAP}-02-29)"
_CLOCK = r"[0-9]{2}:[0-9]{2}:[0-5][0-9](?:\.[0-9]{1,9})?(?:[zZ]|[+-][0-9:]{5})"
_TIGHTER = {
    "date": f"^{_DATE}$", "time": f"^{_CLOCK}$", "date-time": f"^{_DATE}[tT]{_CLOCK}$",
    "duration": r"^(?:[A-Z]*[0-9]{1,9})+[A-Z]$",
    "email": r"^[^@]{1,64}@[^.]{1,63}(?:\.[^.]{1,63}){0,3}$",
    "hostname": r"^[^.]{1,63}(?:\.[^.]{1,63}){0,3}$",
}  # fmt: skip


def string_schema(piece: StringPiece) -> dict[str, Any]:
    """Raises GrammarError if its languages take too large an automaton."""
    formats = [{"type": "string", "format": name} for name in piece.formats]
    formats += [{"type": "string", "pattern": _TIGHTER[name]} for name in piece.formats if name in _TIGHTER]
    if piece.literals is not None:
        listed: dict[str, Any] = {"enum": list(piece.literals)}
        return {"allOf": [listed, *formats]} if formats else listed
    texts = list(piece.verbatim)
    try:
        for language in piece.languages:
            texts += [automata.written(part) for part in automata.conjuncts(language)]
    except TooLargeError:
        raise not_enforced(
            "pattern", piece.place,
            f"it takes an automaton of more than {automata.MAX_STATES} states, or an expression of more than "
            f"{automata.MAX_WRITTEN} characters",
        ) from None  # fmt: skip
    length: dict[str, Any] = {"minLength": piece.low} if piece.low else {}
    length |= {} if piece.high is None else {"maxLength": piece.high}
    parts = [{"type": "string", "pattern": text} for text in dict.fromkeys(texts)] + formats
    if length or not parts:
        parts = [{"type": "string", **length}, *parts]
    return parts[0] if len(parts) == 1 else {"allOf": parts}


def number_schemas(piece: NumberPiece) -> Iterator[dict[str, Any]]:
    """None if no number is left. Raises GrammarError for a value that cannot be told from its neighbours."""
    if piece.values is not None:
        yield {"enum": [exact(value, piece) for value in piece.values]}
        return
    schema = _integer(piece) if piece.integer else _real(piece)
    if schema is not None:
        divisors = [{"type": schema["type"], "multipleOf": divisor} for divisor in piece.multiples]
        yield {"allOf": [schema, *divisors]} if divisors else schema


def exact(value: float | int, piece: NumberPiece) -> float | int:
    """A value of an enumeration, an integer if it is one. Raises GrammarError if it has too many digits."""
    exact = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(exact, int) and (abs(exact) > _EXACT or int(float(exact)) != exact):
        raise not_enforced("enum", piece.place, f"{str(exact)[:40]} has more digits than can be told apart")
    return exact


def _integer(piece: NumberPiece) -> dict[str, Any] | None:
    low = None if piece.low is None else math.floor(piece.low) + 1 if piece.low_open else math.ceil(piece.low)
    high = None if piece.high is None else math.ceil(piece.high) - 1 if piece.high_open else math.floor(piece.high)
    least = -_LARGEST_INTEGER if low is None else max(low, -_EXACT)
    most = _LARGEST_INTEGER if high is None else min(high, _EXACT)
    if least > most:  # one bound is beyond those that are used where there is none
        least = -_EXACT if low is None else least
        most = _EXACT if high is None else most
    least, most = _to_float(least, math.inf), _to_float(most, -math.inf)
    return {"type": "integer", "minimum": least, "maximum": most} if least <= most else None


def _to_float(value: int, towards: float) -> int:
    """The nearest integer in this direction that a float holds."""
    nearest = float(value)
    if (int(nearest) < value) if towards > 0 else (int(nearest) > value):
        nearest = math.nextafter(nearest, towards)
    return int(nearest)


def _real(piece: NumberPiece) -> dict[str, Any] | None:
    schema: dict[str, Any] = {"type": "number"}
    low = None if piece.low is not None and piece.low < -_LARGEST_NUMBER else piece.low
    high = None if piece.high is not None and piece.high > _LARGEST_NUMBER else piece.high
    bounds = [bound for bound in (low, high) if bound is not None]
    sides = (("inimum", low, piece.low_open, -1), ("aximum", high, piece.high_open, 1))
    for name, bound, is_open, sign in sides:
        if bound is None:
            if all(abs(other) < _LARGEST_NUMBER for other in bounds):
                schema[f"exclusiveM{name}"] = sign * _LARGEST_NUMBER
            continue
        inside = _inside(bound, -sign)
        schema[f"exclusiveM{name}" if is_open and inside == bound else f"m{name}"] = inside
    if not piece.multiples and not any(0 < abs(bound) < 1e-6 for bound in bounds):
        schema["multipleOf"] = _DECIMALS
    return schema


def _inside(bound: float | int, direction: int) -> float | int:
    """The nearest float that is not outside of the bound."""
    nearest = float(bound)
    if (Fraction(nearest) - Fraction(bound)) * direction < 0:
        nearest = math.nextafter(nearest, direction * math.inf)
    return int(nearest) if nearest.is_integer() else nearest
