"""Reads single values of `adapter_config.json`: checks type and bounds, and raises an AdapterError naming the key.

Also refuses True in place of 1, which Python would accept, and numbers beyond float64, which JSON permits.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

from intaglio.errors import AdapterError

CONFIG_FILE = "adapter_config.json"

# A rank search names every module of the model; no Gemma has more than 434.
_MAX_PATTERN_KEYS = 1024
_MAX_LAYER_PATTERNS = 16
_MAX_SAVED_MODULES = 4096


def fault(key: str, value: object, needed: str) -> AdapterError:
    """The error for an invalid value; `needed` says what is valid."""
    shown = "missing" if value is None else f"{reprlib.repr(value)}"
    return AdapterError(f"{CONFIG_FILE}: {key} is {shown}; {needed}")


def rank(value: object, key: str) -> int:
    if type(value) is not int or not 1 <= value < 1 << 31:
        raise fault(key, value, "a rank, a whole number from 1, is needed")
    return value


def alpha(value: object, key: str) -> float:
    if type(value) not in (int, float):
        raise fault(key, value, "a number is needed; without it the scaling of the adapter is unknown")
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise fault(key, value, "a finite number is needed")
    return number


def flag(raw: Mapping[str, Any], key: str) -> bool:
    """Missing and null are false."""
    value = raw.get(key)
    if value is not None and not isinstance(value, bool):
        raise fault(key, value, "true or false is needed")
    return bool(value)


def text(raw: Mapping[str, Any], key: str) -> str | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        raise fault(key, value, "a string is needed")
    return value


def pattern(raw: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    """Expressions and their values, in file order."""
    value = raw.get(key)
    if value is None:
        return []
    if not isinstance(value, dict) or len(value) > _MAX_PATTERN_KEYS:
        raise fault(key, value, f"an object of at most {_MAX_PATTERN_KEYS} module patterns is needed")
    return list(value.items())


def names(value: object, key: str) -> tuple[str, ...] | str:
    """A list of module names, or one expression."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise fault(key, value, "a list of module names or one expression is needed")
    return tuple(value)


def layers(value: object) -> frozenset[int] | None:
    """None means every layer, and so does an empty list. As in PEFT nothing counts from the end: -1 is no layer."""
    found = [value] if type(value) is int else value
    if found is None or found == []:
        return None
    if not isinstance(found, list) or not all(type(layer) is int for layer in found):
        raise fault("layers_to_transform", value, "a layer index or a list of them is needed")
    return frozenset(found)


def layer_patterns(value: object) -> tuple[str, ...]:
    """The names allowed in front of the layer's number in a path; empty allows any."""
    found = [value] if isinstance(value, str) else value
    if found in (None, [], [""]):
        return ()
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise fault("layers_pattern", value, "the name in front of the layer's number, or a list of names, is needed")
    if len(found) > _MAX_LAYER_PATTERNS:
        raise fault("layers_pattern", value, f"the limit is {_MAX_LAYER_PATTERNS}")
    return tuple(found)


def saved_modules(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise fault("modules_to_save", value, "a list of module names is needed")
    if len(value) > _MAX_SAVED_MODULES:
        raise fault("modules_to_save", value, f"the limit is {_MAX_SAVED_MODULES}")
    return tuple(value)


def token_indices(value: object) -> dict[str, tuple[int, ...]]:
    """End of a module's path -> the tokens whose rows were trained, in the order of the rows."""
    key = "trainable_token_indices"
    if value is None:
        return {}
    tables = {"embed_tokens": value} if isinstance(value, list) else value
    if not isinstance(tables, dict) or not all(tables):
        raise fault(key, value, "a list of token ids, or an object of module names with such lists, is needed")
    for ids in tables.values():
        if not isinstance(ids, list) or not all(type(token) is int and 0 <= token < 1 << 31 for token in ids):
            raise fault(key, value, "token ids, whole numbers from 0, are needed")
        if len(set(ids)) != len(ids):
            raise fault(key, value, "a token is named twice; which of its rows is meant is not defined")
    return {name: tuple(ids) for name, ids in tables.items()}
