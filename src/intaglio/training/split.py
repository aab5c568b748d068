"""What is trained on and what is held out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from intaglio.errors import TrainingDataError
from intaglio.training.data import Example


class Split(NamedTuple):
    """Two lists without a common question, each in the order of the file."""

    training: list[Example]
    held_out: list[Example]


def split_examples(
    examples: Sequence[Example], fraction: float, seed: int, path: Path, at_most: int | None = None
) -> Split:
    """Hold out about `fraction` of the questions, `at_most` so many, chosen by `seed`; 0 holds out none.

    Examples with the same question stay together: what was trained on would be no test. At least one question is held
    out and at least one trained on. Raises TrainingDataError if there is only one.
    """
    if fraction == 0:
        return Split(list(examples), [])
    questions = sorted({example.question for example in examples})
    if len(questions) < 2:
        raise TrainingDataError(
            f"{path} asks only one question, so none can be held out; give --held-out 0 or --eval-data FILE"
        )
    random.Random(seed).shuffle(questions)
    count = min(len(questions) - 1, max(1, round(fraction * len(questions))))
    held_out = set(questions[: count if at_most is None else min(count, at_most)])
    return Split(
        [example for example in examples if example.question not in held_out],
        [example for example in examples if example.question in held_out],
    )
