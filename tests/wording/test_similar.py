from __future__ import annotations

import time

import pytest

from intaglio.wording.similar import MAX_SIMILAR, did_you_mean, similar_names

NAMES = ("intaglio-triage", "my-adapter", "sql_writer", "a", "B.c")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("my_adapter", ("my-adapter",)),
        ("MY-ADAPTER", ("my-adapter",)),
        ("triage", ("intaglio-triage",)),
        ("sql-writr", ("sql_writer",)),
        ("b-c", ("B.c",)),
        ("zebra", ()),
        ("", ()),
        ("in", ()),
        ("x" * 129, ()),
    ],
)
def test_names_that_resemble_are_found_by_characters_case_and_parts(asked: str, found: tuple[str, ...]) -> None:
    assert similar_names(asked, NAMES) == found


def test_the_best_come_first_and_only_a_few() -> None:
    names = [f"adapter-{number}" for number in range(20)]
    found = similar_names("adapter-7x", names)
    assert found[0] == "adapter-7"
    assert len(found) == MAX_SIMILAR


def test_a_thousand_names_are_compared_in_little_time() -> None:
    names = [f"{number:03}-{'abcdefgh' * 3}" for number in range(1000)]
    began = time.process_time()
    similar_names("abcdefgh" * 3 + "-123", names)
    assert time.process_time() - began < 2


def test_without_names_nothing_is_asked() -> None:
    assert did_you_mean(()) == ""
    assert did_you_mean(("a", "b")) == "Did you mean a or b?"
