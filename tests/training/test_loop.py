"""How many steps a run takes, and the learning rate of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.training.loop import learning_rate, num_steps
from tests.training.test_options import options


def test_the_number_of_steps_follows_from_the_epochs_unless_given(tmp_path: Path) -> None:
    assert num_steps(options(tmp_path, batch_size=8), 100) == 39  # 13 batches, 3 times
    assert num_steps(options(tmp_path, batch_size=8, epochs=0.5), 100) == 6
    assert num_steps(options(tmp_path, epochs=0.01), 3) == 1
    assert num_steps(options(tmp_path, steps=7), 100) == 7


@pytest.mark.parametrize("steps", [1, 2, 7, 133, 1000])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_tenth(steps: int) -> None:
    rates = [learning_rate(step, steps, 2.0) for step in range(steps)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(2.0)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) > 0
    assert steps < 100 or rates[-1] == pytest.approx(0.2, rel=0.01)
