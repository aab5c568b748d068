"""How many cases a test draws, in proportion to the profile's number."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

_USUAL = 100  # of the profiles `fixed` and `random`


def drawn_cases(number: int, **options: Any) -> settings:
    """For a test that draws `number` cases where others draw 100; in the profile `quick` both draw a third of that."""
    return settings(max_examples=max(1, number * settings().max_examples // _USUAL), **options)
