"""JSON from strangers: one object, no key twice, no NaN; anything else is an AdapterError.

Python's parser keeps the last of two equal keys and reads NaN. A file that says two things is sent back, not guessed.
"""

from __future__ import annotations

import json
import reprlib
from typing import Any

from intaglio.errors import AdapterError


def parse_object(data: bytes, label: str) -> dict[str, Any]:
    """Parse UTF-8 bytes that must hold one JSON object. label names them in messages. Raises AdapterError."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise AdapterError(f"{label} is nested too deeply") from None
    except ValueError as error:  # bad UTF-8 and numbers of thousands of digits are ValueErrors too
        raise AdapterError(f"{label} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise AdapterError(f"{label} is {reprlib.repr(value)}; a JSON object is needed")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise ValueError(f"key {reprlib.repr(key)} occurs twice")
        unique[key] = value
    return unique


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")
