"""Query parameters as checked values. A BadInputError names the parameter and its value."""

from __future__ import annotations

from collections.abc import Mapping

from intaglio.errors import BadInputError
from intaglio.wording import shown
from intaglio.wording.similar import meant_or, misspelt

_FLAGS = {"true": True, "1": True, "": False, "false": False, "0": False}


def integer(query: Mapping[str, str], name: str, *, default: int, low: int, high: int = 2**31 - 1) -> int:
    """An integer from low to high; the default if it is absent. Raises BadInputError."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and low <= int(text) <= high):
        raise BadInputError(f"query parameter {name!r} is {shown(text)}, not an integer from {low} to {high}")
    return int(text)


def flag(query: Mapping[str, str], name: str) -> bool:
    """true or false; false if it is absent. Raises BadInputError."""
    text = query.get(name, "").lower()
    if text not in _FLAGS:
        raise BadInputError(f"query parameter {name!r} is {shown(text)}, not true or false")
    return _FLAGS[text]


def check_names(query: Mapping[str, str], *known: str) -> None:
    """Raise BadInputError for an unknown parameter, on routes where it must not be ignored."""
    unknown = sorted(query.keys() - set(known))
    if unknown:
        advice = meant_or(unknown[0], known, f"known: {', '.join(known) or 'none'}")
        raise BadInputError(f"query parameter {shown(unknown[0])} is not known here; {advice}")


def check_spelling(query: Mapping[str, str], *known: str) -> None:
    """Raise BadInputError for a parameter that is a known one but for a letter or two.

    For routes on which clients send parameters of their own, which are ignored. A misspelt one would be ignored too.
    """
    for name in query:
        meant = misspelt(name, known)
        if meant is not None:
            raise BadInputError(f"query parameter {shown(name)} is not known; did you mean {meant}?")
