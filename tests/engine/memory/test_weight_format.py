"""The format that `auto` means for the 7B's and the 270M's sizes on machines of several sizes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from intaglio.engine.memory.available import AvailableMemory
from intaglio.engine.memory.machine import plan_for_machine
from intaglio.engine.memory.weight_format import fitting_formats
from intaglio.model.weights import TensorInfo
from intaglio.settings import load_settings
from tests.helpers.checkpoints import tensor_shapes, tiny_config
from tests.helpers.sparse_checkpoints import write_sparse_folder

GB = 10**9
SEVEN_B = {
    "vocab_size": 256_000,
    "hidden_size": 3072,
    "intermediate_size": 24_576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
}


def checkpoint(dtype: str = "BF16") -> dict[str, TensorInfo]:
    shapes = tensor_shapes(tiny_config("gemma", **SEVEN_B))
    return {name: TensorInfo(shape, dtype if len(shape) == 2 else "BF16") for name, shape in shapes.items()}


def memory(size_gb: float) -> AvailableMemory:
    return AvailableMemory(int(size_gb * GB), "memory of a test")


@pytest.mark.parametrize(
    ("size_gb", "expected"),
    [(32, "auto"), (18.3, "auto"), (17.9, "w8"), (10.5, "w8"), (9.9, "w5"), (8.0, "w5"), (7.4, "w4"), (2, "w4")],
)
def test_the_7b_in_bfloat16_is_held_in_as_many_bits_as_fit(size_gb: float, expected: str) -> None:
    assert fitting_formats([checkpoint()], memory(size_gb))[0].format == expected


def test_two_models_share_the_memory() -> None:
    assert fitting_formats([checkpoint(), checkpoint()], memory(32))[0].format == "w8"


def test_the_reason_is_one_line_with_the_sizes() -> None:
    reason = fitting_formats([checkpoint()], memory(12))[0].reason
    assert reason == (
        "format w8: 12,000 MB available (memory of a test), and the weights as in the checkpoint take 17,076 MB, "
        "in w8 9,072 MB; --format overrides it"
    )


@pytest.mark.parametrize("dtype", ["Q8_0", "Q4_0", "Q6_K"])
def test_a_quantized_checkpoint_stays_as_it_is(dtype: str) -> None:
    assert [one.format for one in fitting_formats([checkpoint(dtype)], memory(2))] == ["auto"]


def test_the_reference_backend_keeps_the_format_since_it_widens_all_to_float32() -> None:
    assert [one.format for one in fitting_formats([checkpoint()], memory(2), widened=True)] == ["auto"]


@pytest.mark.parametrize(("size_gb", "expected"), [(4.0, "auto"), (1.2, "w8"), (0.7, "w4")])
def test_a_start_takes_the_format_that_fits_and_logs_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size_gb: float, expected: str
) -> None:
    """40 layers of 27 MB in bfloat16."""
    config = tiny_config("gemma", hidden_size=1024, intermediate_size=4096, num_hidden_layers=40)
    folder = write_sparse_folder(tmp_path / "model", config)
    settings = load_settings(cache_dir=tmp_path, kernels="plain", kv_cache_bytes=1 << 24, adapter_cache_bytes=1 << 22)
    with caplog.at_level(logging.WARNING):
        chosen = plan_for_machine([folder], settings, memory(size_gb)).of_model(0)
    assert chosen.format == expected
    assert (f"format {expected}: " in caplog.text) == (expected != "auto")
    given = load_settings(**{**settings.model_dump(exclude_unset=True), "format": "w5"})
    assert plan_for_machine([folder], given, memory(1.2)).of_model(0).format == "w5"
