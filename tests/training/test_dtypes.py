"""The base's dtype is chosen by measured speeds."""

from __future__ import annotations

import pytest

from intaglio.model.config import config_from_hf
from intaglio.training.dtypes import BASE_DTYPES, Speed, faster_dtype, measure_speeds
from tests.helpers.checkpoints import FAMILIES, Family, tiny_config


@pytest.mark.parametrize(
    ("bfloat16", "chosen"),
    [
        (Speed(1.8, 0.15), "float32"),  # emulated, measured on AMD EPYC with AVX2
        (Speed(50.0, 0.15), "float32"),  # faster in one direction only
        (Speed(30.0, 30.0), "float32"),
        (Speed(40.0, 40.0), "float32"),  # faster by a third, which is not enough
        (Speed(100.0, 100.0), "bfloat16"),
    ],
)
def test_bfloat16_is_chosen_where_it_is_clearly_faster_in_both_directions(bfloat16: Speed, chosen: str) -> None:
    choice = faster_dtype({"float32": Speed(30.0, 30.0), "bfloat16": bfloat16})
    assert choice.name == chosen
    assert str(bfloat16) in choice.reason


@pytest.mark.oracle
@pytest.mark.parametrize("family", FAMILIES)
def test_measuring_leaves_the_random_numbers_of_the_training_as_they_are(family: Family) -> None:
    import torch

    state = torch.get_rng_state()
    speeds = measure_speeds(config_from_hf(tiny_config(family)))
    assert list(speeds) == list(BASE_DTYPES)
    assert all(speed.forward > 0 and speed.backward > 0 for speed in speeds.values())
    assert torch.equal(torch.get_rng_state(), state)
