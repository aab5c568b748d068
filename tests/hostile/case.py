"""Hostile and unusual adapters as test cases: how the two files are made, and what the error message must contain.

A case is a function that makes the files, not their bytes, so that its fault can be read, and a file of two megabytes
takes one line. It spoils one thing of a valid adapter, so that the refusal can have no other cause.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.hostile.good_adapter import Files

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class HostileCase:
    """Two files, one of which is invalid.

    name       what is wrong, as a test id
    make       turns the valid files into those of the case
    complaint  a regular expression for the error message: what is wrong, its value, the bound
    bad        name of the invalid file
    alone      whether it can be refused without the other file
    slow       whether the case runs with the slow tests only
    """

    name: str
    make: Callable[[Files], Files]
    complaint: str
    bad: str
    alone: bool = True
    slow: bool = False


class ValidCase(NamedTuple):
    """Two unusual files that are valid: they must be accepted.

    expected  path of a module -> the factor that its B must be multiplied with
    """

    name: str
    make: Callable[[Files], Files]
    expected: Callable[[str], float]


def bad_weights(
    name: str, complaint: str, make: Callable[[bytes], bytes], *, alone: bool = True, slow: bool = False
) -> HostileCase:
    """A case whose weights are invalid."""
    return HostileCase(name, lambda good: good._replace(weights=make(good.weights)), complaint, WEIGHTS, alone, slow)


def bad_config(name: str, complaint: str, *, alone: bool = True, slow: bool = False, **changes: Any) -> HostileCase:
    """A case with invalid keys of the config; `...` as a value removes the key."""

    def make(good: Files) -> Files:
        return good._replace(config=changed(good.config, changes))

    return HostileCase(name, make, complaint, CONFIG, alone, slow)


def bad_config_text(name: str, complaint: str, make: Callable[[bytes], bytes], *, slow: bool = False) -> HostileCase:
    """A case whose config has invalid bytes."""
    return HostileCase(name, lambda good: good._replace(config=make(good.config)), complaint, CONFIG, slow=slow)


def changed(config: bytes, changes: dict[str, Any]) -> bytes:
    """The config with keys replaced, added or (value `...`) removed."""
    keys = json.loads(config) | changes
    return json.dumps({key: value for key, value in keys.items() if value is not ...}).encode()
