"""Options are held against their bounds before anything is read or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import TrainingError
from intaglio.training.options import ADAPTER_FILES, PROJECTIONS, TrainingOptions, check_options
from intaglio.training.schedule import learning_rate, num_steps


def options(folder: Path, **changes: Any) -> TrainingOptions:
    return TrainingOptions(**{"data": folder / "d.jsonl", "out": folder / "out", "base_name": "base"} | changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rank": 0}, "--rank is 0; from 1 to 256 is allowed"),
        ({"steps": 0}, "--steps is 0"),
        ({"steps": 3, "epochs": 2.0}, "--steps 3 and --epochs 2 are both given"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"held_out": 0.95}, "--held-out is 0.95; from 0 to 0.9"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"alpha": 0.0}, "--alpha is 0.0"),
        ({"dropout": 1.0}, "--dropout is 1.0"),
        ({"max_length": 4}, "--max-length is 4"),
        ({"threads": 0}, "--threads is 0"),
        ({"targets": ("q_proj", "w_proj")}, "--targets names w_proj; the linear layers are q_proj, k_proj"),
        ({"targets": ()}, "--targets names nothing"),
        ({"dtype": "float16"}, "--dtype is 'float16'; one of auto, float32, bfloat16 is allowed"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_an_option_out_of_bounds_is_refused_by_name(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        check_options(options(tmp_path, **change))


def test_what_is_in_bounds_is_taken(tmp_path: Path) -> None:
    check_options(options(tmp_path, targets=PROJECTIONS[:2], steps=1, alpha=16.0))


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_an_adapter_that_is_there_is_only_replaced_when_asked(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("{}")
    with pytest.raises(TrainingError, match=f"has {name} already; take another folder or add --overwrite"):
        check_options(options(tmp_path))
    check_options(options(tmp_path, overwrite=True))


def test_a_file_cannot_be_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(TrainingError, match="out is a file"):
        check_options(options(tmp_path))


def test_steps_come_from_the_epochs_unless_given(tmp_path: Path) -> None:
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
