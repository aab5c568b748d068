"""All families of hostile and honest adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.hostile.case import HonestCase, HostileCase
from tests.hostile.cases import configs, containers, extras, headers, odd, places, silent, tables, values

FAMILIES: tuple[tuple[HostileCase, ...], ...] = tuple(
    family.CASES for family in (headers, values, configs, silent, places, extras, tables, containers)
)
HOSTILE: tuple[HostileCase, ...] = tuple(case for family in FAMILIES for case in family)
HONEST_FAMILIES: tuple[tuple[HonestCase, ...], ...] = (values.HONEST, odd.HONEST)
HONEST: tuple[HonestCase, ...] = tuple(case for family in HONEST_FAMILIES for case in family)


def every(cases: Sequence[HostileCase]) -> list[Any]:
    """Parameters of a test that meets all cases in the default suite, but for those that take a while."""
    return [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else []) for case in cases]


def one_of_each(families: Sequence[Sequence[HostileCase]] | Sequence[Sequence[HonestCase]]) -> list[Any]:
    """Parameters of a test that takes its time with each case: the first of each family in the default suite, all with
    the slow ones. The reader, which judges every one of them behind that door too, meets all of them each time.
    """
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if number else [])
        for family in families
        for number, case in enumerate(family)
    ]
