"""JSON objects from files that nobody has checked yet."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from intaglio.errors import ModelFormatError


def read_json_object(path: Path, max_bytes: int) -> dict[str, Any]:
    """Read a file that holds one JSON object. Raises ModelFormatError naming the file."""
    try:
        with path.open("rb") as file:
            text = file.read(max_bytes + 1)
    except OSError as error:
        raise ModelFormatError(f"cannot read {path}: {error.strerror}") from error
    if len(text) > max_bytes:
        raise ModelFormatError(f"{path} is larger than {max_bytes} bytes")
    return parse_json_object(text, str(path))


def parse_json_object(text: bytes, what: str) -> dict[str, Any]:
    """Parse one JSON object; `what` names it in messages.

    Stricter than `json.loads`: a key given twice, NaN and infinities are refused, because readers disagree
    on them. Raises ModelFormatError.
    """
    try:
        value = json.loads(text.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError covers bad JSON, bad UTF-8 and numbers too long
        raise ModelFormatError(f"{what} is not JSON that can be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelFormatError(f"{what} holds a JSON {type(value).__name__}, not an object")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r} appears twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
