"""Held-out examples are not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.errors import TrainingDataError
from intaglio.training.data import Example, split_examples

PATH = Path("d.jsonl")


def texts(*contents: str) -> list[Example]:
    return [Example(line, text=content) for line, content in enumerate(contents, start=1)]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), st.floats(0.01, 0.9), st.integers(0, 9))
def test_no_question_is_on_both_sides_of_the_split_and_no_example_is_lost(
    letters: list[str], fraction: float, seed: int
) -> None:
    if len(set(letters)) == 1:
        with pytest.raises(TrainingDataError, match="only one question"):
            split_examples(texts(*letters), fraction, seed, PATH)
        return
    split = split_examples(texts(*letters), fraction, seed, PATH)
    assert split.training
    assert split.held_out
    assert not {e.question for e in split.training} & {e.question for e in split.held_out}
    assert sorted([*split.training, *split.held_out], key=lambda e: e.line) == texts(*letters)
    assert split == split_examples(texts(*letters), fraction, seed, PATH)


def test_about_the_fraction_is_held_out_and_another_seed_holds_out_others() -> None:
    examples = texts(*map(str, range(200)))
    one, other = split_examples(examples, 0.1, 0, PATH), split_examples(examples, 0.1, 1, PATH)
    assert len(one.held_out) == len(other.held_out) == 20
    assert one.held_out != other.held_out


def test_no_more_is_held_out_than_will_be_evaluated() -> None:
    split = split_examples(texts(*map(str, range(200))), 0.1, 0, PATH, at_most=7)
    assert (len(split.training), len(split.held_out)) == (193, 7)


def test_a_fraction_of_zero_holds_out_nothing() -> None:
    assert split_examples(texts("a"), 0, 0, PATH) == (texts("a"), [])


def test_chats_with_the_same_question_and_other_answers_stay_together() -> None:
    def ask(line: int, answer: str) -> Example:
        return Example(line, messages=({"role": "user", "content": "a"}, {"role": "assistant", "content": answer}))

    assert ask(1, "x").question == ask(2, "y").question
