"""One JSON object from a file of unknown origin: no key twice, no NaN, bounded size.

Python's parser accepts NaN and uses the last of two equal keys. Other parsers differ, so such a file is refused.
"""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any, NoReturn

from intaglio.errors import IntaglioError
from intaglio.files.lfs_pointer import LFS_ADVICE, is_lfs_pointer
from intaglio.files.regular_file import open_regular


def read_json_object(path: Path, max_bytes: int, label: str, error: type[IntaglioError]) -> dict[str, Any]:
    """Read a regular file that holds one JSON object. label, error: as for `parse_json_object`."""
    with open_regular(path, label, error) as file:
        try:
            data = file.read(max_bytes + 1)
        except OSError as fault:
            raise error(f"{label} cannot be read: {fault.strerror}") from fault
    if len(data) > max_bytes:
        raise error(f"{label} has more than {max_bytes} bytes")
    return parse_json_object(data, label, error)


def parse_json_object(data: bytes, label: str, error: type[IntaglioError]) -> dict[str, Any]:
    """Parse UTF-8 bytes that hold one JSON object.

    label  names the bytes in messages
    error  raised when they are not valid JSON, a key occurs twice, or the value is not an object
    """
    if is_lfs_pointer(data):
        raise error(f"{label}: {LFS_ADVICE}")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise error(f"{label} is nested too deeply") from None
    except ValueError as fault:  # bad UTF-8 and numbers of thousands of digits are ValueErrors too
        raise error(f"{label} is not valid JSON: {fault}") from fault
    if not isinstance(value, dict):
        raise error(f"{label} is {reprlib.repr(value)}; a JSON object is needed")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise ValueError(f"key {reprlib.repr(key)} occurs twice")
        unique[key] = value
    return unique


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
