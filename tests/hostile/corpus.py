"""All families of hostile and honest adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.hostile.case import HonestCase, HostileCase
from tests.hostile.cases import configs, containers, extras, headers, odd, places, silent, tables, values

_FAMILIES = (headers, values, configs, silent, places, extras, tables, containers)

HOSTILE: tuple[HostileCase, ...] = tuple(case for family in _FAMILIES for case in family.CASES)
HONEST: tuple[HonestCase, ...] = values.HONEST + odd.HONEST

_EVERY = 12


def every(cases: Sequence[HostileCase]) -> list[Any]:
    """Parameters of a test that meets all cases in the default suite, but for those that take a second."""
    return [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else []) for case in cases]


def sampled(cases: Sequence[HostileCase] | Sequence[HonestCase]) -> list[Any]:
    """Parameters of a test that takes its time with each case: one of twelve in the default suite, all with the slow
    ones. The reader, which judges every one of them behind that door too, meets all of them each time.
    """
    return [
        pytest.param(case, id=case.name, marks=[] if number % _EVERY == 0 else [pytest.mark.slow])
        for number, case in enumerate(cases)
    ]
