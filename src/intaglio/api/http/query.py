"""Query parameters as values, with bounds; a bad one is the caller's fault and is named."""

from __future__ import annotations

from collections.abc import Mapping

from intaglio.errors import BadInputError

_FLAGS = {"true": True, "1": True, "": False, "false": False, "0": False}


def integer(query: Mapping[str, str], name: str, *, default: int, low: int, high: int = 2**31 - 1) -> int:
    """An integer within bounds; absent is the default. Raises BadInputError."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and low <= int(text) <= high):
        raise BadInputError(f"query parameter {name!r} is {text[:40]!r}, not an integer from {low} to {high}")
    return int(text)


def flag(query: Mapping[str, str], name: str) -> bool:
    """true or false; absent is false. Raises BadInputError."""
    text = query.get(name, "").lower()
    if text not in _FLAGS:
        raise BadInputError(f"query parameter {name!r} is {text[:40]!r}, not true or false")
    return _FLAGS[text]


def check_names(query: Mapping[str, str], *known: str) -> None:
    """Refuse a parameter that the route does not know, where ignoring it would do something else than was asked.

    Raises BadInputError.
    """
    unknown = sorted(query.keys() - set(known))
    if unknown:
        raise BadInputError(f"query parameter {unknown[0][:40]!r} is not known here; known: {', '.join(known)}")
