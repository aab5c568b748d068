"""The memory that a training needs is computed before anything is loaded."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import NotEnoughMemoryError
from intaglio.model.config import ModelConfig, config_from_hf
from intaglio.training.base import add_adapter, load_base
from intaglio.training.dtypes import BASE_DTYPES, BaseDtype
from intaglio.training.memory import Available, BatchShape, MemoryNeed, activation_bytes, check_memory, memory_need
from intaglio.training.options import TrainingOptions
from tests.helpers.checkpoints import FAMILIES, Family, random_weights, tiny_config, write_hf_folder

SHAPE = BatchShape(rows=2, width=200)
# Bounds of the computed bytes, relative to what torch keeps: they may be somewhat more, because the widths of the tiny
# models differ much less from each other than those of real models, but never clearly less.
LEAST, MOST = 0.97, 1.35


def options(folder: Path, **changes: Any) -> TrainingOptions:
    return TrainingOptions(data=folder, out=folder, base_name="tiny", rank=4, **changes)


def kept_bytes(model: Any, shape: BatchShape) -> int:
    """Bytes that a forward pass keeps for the backward pass, without the weights; each storage counts once."""
    import torch

    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that its address is not given out again
        return tensor

    ids = torch.zeros(shape.rows, shape.width, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.get_base_model().model(input_ids=ids, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("extra", ["plain", "dora"])
@pytest.mark.parametrize("dtype", BASE_DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_bytes_computed_for_a_step_are_those_that_torch_keeps(
    tmp_path: Path, family: Family, dtype: BaseDtype, extra: str
) -> None:
    raw = tiny_config(family)
    chosen = options(tmp_path, dora=extra == "dora")
    model = add_adapter(load_base(write_hf_folder(tmp_path / "m", raw, random_weights(raw)), dtype), chosen).train()
    kept = kept_bytes(model, SHAPE)
    computed = activation_bytes(config_from_hf(raw), chosen, SHAPE, dtype)
    assert LEAST * kept < computed < (MOST if extra == "plain" else 2) * kept


def config() -> ModelConfig:
    return config_from_hf(tiny_config("gemma3_text"))


def test_the_base_in_bfloat16_takes_half_the_memory_of_float32(tmp_path: Path) -> None:
    float32, bfloat16 = (memory_need(config(), options(tmp_path), SHAPE, dtype) for dtype in BASE_DTYPES)
    assert float32.weights == 2 * bfloat16.weights > 0


def test_wider_batches_and_larger_vocabularies_take_more_memory(tmp_path: Path) -> None:
    need = memory_need(config(), options(tmp_path), SHAPE, "float32")
    wide = memory_need(config(), options(tmp_path), replace(SHAPE, width=400), "float32")
    many = memory_need(replace(config(), vocab_size=262_144), options(tmp_path), SHAPE, "float32")
    assert wide.step > need.step
    assert many.step - need.step == 64 * 12 * (262_144 - config().vocab_size)  # 64 positions at a time


@pytest.mark.parametrize("dtype", BASE_DTYPES)
def test_the_refusal_names_the_need_the_bound_and_what_can_be_lowered(dtype: BaseDtype) -> None:
    need = MemoryNeed(weights=1_000_000_000, step=500_000_000)
    check_memory(need, Available(1_500_000_000, "x"), dtype, SHAPE)
    with pytest.raises(NotEnoughMemoryError) as refused:
        check_memory(need, Available(1_499_999_999, "memory limit of the control group"), dtype, SHAPE)
    said = str(refused.value)
    assert said.startswith(f"training needs about 1.50 GB (1.00 GB for the base in {dtype}, 0.50 GB for batches of 2")
    assert "1.50 GB are available (memory limit of the control group)" in said
    assert ("--dtype bfloat16" in said) == (dtype == "float32")


@pytest.mark.oracle
def test_the_command_checks_the_limit_of_the_process_before_it_loads_the_base(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n')
    limit_kib = 1_200_000  # the bundled model needs more than that even in bfloat16
    train = [sys.executable, "-m", "intaglio.cli", "train", str(data), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        ["bash", "-c", f'ulimit -d {limit_kib}; exec "$@"', "bash", *train], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "training needs about" in done.stderr
    assert "the base in bfloat16" in done.stderr
    assert "GB are available (RLIMIT_DATA of the process)" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
