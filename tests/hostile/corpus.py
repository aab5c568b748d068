"""All families of hostile and honest adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.hostile.case import HonestCase, HostileCase
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
HONEST_FAMILIES: tuple[tuple[HonestCase, ...], ...] = (values.HONEST, unusual.HONEST)
HONEST: tuple[HonestCase, ...] = tuple(case for family in HONEST_FAMILIES for case in family)


def every(cases: Sequence[HostileCase]) -> list[Any]:
    """Parameters of a test that meets all cases in the default suite, but for those that take a while."""
    return [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else []) for case in cases]


def one_of_each(families: Sequence[Sequence[HostileCase]] | Sequence[Sequence[HonestCase]]) -> list[Any]:
    """Parameters of a test that takes its time with each case: the first of each family in the default suite, all with
    the slow ones. `test_reader.py` gives all of them to the reader, on every run.
    """
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if number else [])
        for family in families
        for number, case in enumerate(family)
    ]
