"""What a hostile case is: how its two files are made, and what the refusal has to say.

Cases are kept as makers and not as bytes, so that a reader sees what is wrong with each, and a file of two megabytes
costs a line. A case spoils a good adapter in one respect; everything else about it is as it should be, so that the
refusal can have no other cause.
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
    """Two files of which one is at fault.

    name       what is wrong, as a test id
    make       the good files -> these
    complaint  an expression that the refusal must match: what is wrong, its value, the bound
    bad        the file that is at fault
    alone      whether that shows without the other file
    slow       it takes a while
    """

    name: str
    make: Callable[[Files], Files]
    complaint: str
    bad: str
    alone: bool = True
    slow: bool = False


class HonestCase(NamedTuple):
    """Two files that are odd and right: to be taken, and to be computed with exactly as `expected` says.

    expected  path of a module -> the factor that its B is to be multiplied with
    """

    name: str
    make: Callable[[Files], Files]
    expected: Callable[[str], float]


def bad_weights(
    name: str, complaint: str, make: Callable[[bytes], bytes], *, alone: bool = True, slow: bool = False
) -> HostileCase:
    """The weights are at fault."""
    return HostileCase(name, lambda good: good._replace(weights=make(good.weights)), complaint, WEIGHTS, alone, slow)


def bad_config(name: str, complaint: str, *, alone: bool = True, slow: bool = False, **changes: Any) -> HostileCase:
    """Keys of the config are at fault; `...` as a value takes the key away."""

    def make(good: Files) -> Files:
        return good._replace(config=changed(good.config, changes))

    return HostileCase(name, make, complaint, CONFIG, alone, slow)


def bad_config_text(name: str, complaint: str, make: Callable[[bytes], bytes], *, slow: bool = False) -> HostileCase:
    """The config's bytes are at fault."""
    return HostileCase(name, lambda good: good._replace(config=make(good.config)), complaint, CONFIG, slow=slow)


def changed(config: bytes, changes: dict[str, Any]) -> bytes:
    keys = json.loads(config) | changes
    return json.dumps({key: value for key, value in keys.items() if value is not ...}).encode()
