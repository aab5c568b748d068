"""Options are checked against their bounds before anything is read or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import TrainingError
from intaglio.training.options import ADAPTER_FILES, LINEAR_LAYERS, TrainingOptions, check_options


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


def test_options_in_bounds_are_accepted(tmp_path: Path) -> None:
    check_options(options(tmp_path, targets=LINEAR_LAYERS[:2], steps=1, alpha=16.0))


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_an_existing_adapter_is_replaced_only_with_overwrite(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("{}")
    with pytest.raises(TrainingError, match=f"{name} .*--overwrite"):
        check_options(options(tmp_path))
    check_options(options(tmp_path, overwrite=True))


def test_a_file_as_output_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(TrainingError, match="out is a file"):
        check_options(options(tmp_path))
