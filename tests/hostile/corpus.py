"""All families of hostile adapters, and of unusual valid ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.hostile.case import HostileCase, ValidCase
from tests.hostile.cases import (
    configs,
    containers,
    headers,
    silently_wrong_elsewhere,
    tables,
    unknown_modules,
    unusual,
    values,
    vectors_and_norms,
)

FAMILIES: tuple[tuple[HostileCase, ...], ...] = tuple(
    family.CASES
    for family in (
        headers,
        values,
        configs,
        silently_wrong_elsewhere,
        unknown_modules,
        vectors_and_norms,
        tables,
        containers,
    )
)
HOSTILE: tuple[HostileCase, ...] = tuple(case for family in FAMILIES for case in family)
VALID_FAMILIES: tuple[tuple[ValidCase, ...], ...] = (values.VALID, unusual.VALID)
VALID: tuple[ValidCase, ...] = tuple(case for family in VALID_FAMILIES for case in family)


def all_cases(cases: Sequence[HostileCase]) -> list[Any]:
    """Parameters for a test of all cases. Slow cases are marked slow."""
    return [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else []) for case in cases]


def first_of_each_family(families: Sequence[Sequence[HostileCase]] | Sequence[Sequence[ValidCase]]) -> list[Any]:
    """Parameters for a test that is slow with each case: the first of each family in the default suite, the others are
    marked slow. `test_reader.py` runs all of them in the default suite.
    """
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if number else [])
        for family in families
        for number, case in enumerate(family)
    ]
