"""The cases that hypothesis draws are the same on every run: they depend on the test alone, not on other files."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers


def drawn_cases() -> list[tuple[int, float, str]]:
    cases = []

    @settings(max_examples=50)
    @given(st.integers(), st.floats(allow_nan=False), st.text())
    def collect(number: int, real: float, text: str) -> None:
        cases.append((number, real, text))

    collect()
    return cases


@pytest.mark.skipif(not settings().derandomize, reason="this run has another hypothesis profile than `fixed`")
@pytest.mark.skipif(
    not hasattr(providers, "_get_local_constants"),
    reason="a hypothesis that finds constants in another way than the locked",
)
def test_constants_of_source_files_do_not_change_the_drawn_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drawn_cases()
    values = [(n, n / 7, f"word {n}") for n in range(123_456, 123_656)]
    (tmp_path / "source_that_was_added.py").write_text(f"VALUES = {values}\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("source_that_was_added")
    assert drawn_cases() == before
