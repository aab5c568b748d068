"""The predicted memory of a model against what loading it takes."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest

from intaglio.model import footprint, quantize
from intaglio.model.footprint import Footprint, weights_footprint
from intaglio.model.loader import load_gemma
from intaglio.model.quantize import WeightFormat
from intaglio.model.weights import open_checkpoint
from intaglio.ops import Ops
from intaglio.ops.cpu import CpuOps
from intaglio.ops.reference import ReferenceOps
from tests.helpers.checkpoints import random_weights, tiny_config, write_gguf
from tests.helpers.kernels import VARIANT

pytestmark = pytest.mark.slow  # tracemalloc follows each allocation

SLACK = 800_000  # bytes of the vocabulary, of Python's own objects, and of pieces that do not grow with the weights
PIECE = 1 << 14


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that are as small, relative to these weights, as the usual pieces relative to a real model's."""
    monkeypatch.setattr(quantize, "_PIECE_WEIGHTS", PIECE // quantize._MAX_THREADS)
    monkeypatch.setattr(footprint, "PIECE_WEIGHTS", PIECE)


@pytest.fixture(params=["cpu", pytest.param("reference", marks=VARIANT)])
def ops(request: pytest.FixtureRequest) -> Ops:
    return CpuOps(1) if request.param == "cpu" else ReferenceOps()


@pytest.fixture(
    scope="module",
    params=["Q5_1", *(pytest.param(storage, marks=VARIANT) for storage in ("F32", "BF16"))],
)
def checkpoint_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three million weights in one storage type, most of them in the embedding."""
    config = tiny_config("gemma3_text", vocab_size=8000, hidden_size=256, intermediate_size=544, num_hidden_layers=2)
    return write_gguf(tmp_path_factory.mktemp("model") / "model.gguf", config, random_weights(config), request.param)


def predicted(path: Path, fmt: WeightFormat, ops: Ops, *, is_packed: bool = False) -> Footprint:
    with open_checkpoint(path) as checkpoint:
        tensors = {name: checkpoint.info(name) for name in checkpoint.names()}
    return weights_footprint(tensors, fmt, widened=isinstance(ops, ReferenceOps), is_packed=is_packed)


def traced(path: Path, fmt: WeightFormat, ops: Ops, packed_dir: Path) -> tuple[int, int]:
    """Bytes in use after loading, and the peak while loading; mapped files count in neither."""
    gc.collect()
    tracemalloc.start()
    try:
        model = load_gemma(path, ops, fmt, packed_dir=packed_dir)
        held, peak = tracemalloc.get_traced_memory()
        del model
    finally:
        tracemalloc.stop()
    return held, peak


@pytest.mark.parametrize(
    ("ops", "fmt"),
    [
        *(("cpu", fmt) for fmt in ("f32", "bf16", "w8", "w5", "w4")),
        *(pytest.param("reference", fmt, marks=VARIANT) for fmt in ("bf16", "w4")),
    ],
    indirect=["ops"],
)
def test_loading_needs_the_memory_that_was_predicted(
    checkpoint_path: Path, fmt: WeightFormat, ops: Ops, tmp_path: Path
) -> None:
    found = predicted(checkpoint_path, fmt, ops)
    held, peak = traced(checkpoint_path, fmt, ops, tmp_path)
    assert peak <= found.weights + found.loading + SLACK
    if held > found.weights / 2:  # else they are mapped
        assert found.weights == pytest.approx(held, abs=SLACK)
        assert found.weights + found.loading <= 1.6 * peak + SLACK, "the prediction is far too high"


def test_packed_weights_need_no_further_memory(checkpoint_path: Path, ops: Ops, tmp_path: Path) -> None:
    traced(checkpoint_path, "w8", ops, tmp_path)
    found = predicted(checkpoint_path, "w8", ops, is_packed=True)
    assert found.loading == 0
    _, peak = traced(checkpoint_path, "w8", ops, tmp_path)
    assert peak <= found.weights + SLACK
    assert found.weights == predicted(checkpoint_path, "w8", ops).weights
