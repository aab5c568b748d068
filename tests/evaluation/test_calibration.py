"""Mean squares of activations, and what they do to a packed file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from intaglio.base_model import BaseModel
from intaglio.engine.memory.available import AvailableMemory
from intaglio.errors import EvaluationError, NotEnoughMemoryError
from intaglio.evaluation.calibration import ActivationOps, calibrate
from intaglio.evaluation.subject import RunningWindow
from intaglio.evaluation.texts import Text
from intaglio.model.loader import load_gemma
from intaglio.model.packing.pack import pack
from intaglio.model.weights import open_checkpoint
from intaglio.ops.cpu import CpuOps
from intaglio.ops.reference import ReferenceOps
from intaglio.settings import Settings, load_settings
from tests.model.packing.test_pack import hf_folder, logits

TEXT = Text("text", "once upon a time there was a small house in the forest and in the house there lived a family")


def settings_of(folder: Path) -> Settings:
    return load_settings(cache_dir=folder.parent / "cache", threads=1)


def test_every_matrix_of_the_blocks_has_the_mean_square_of_its_inputs(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "model")
    base = BaseModel.open(folder, settings_of(folder))
    found = calibrate(base, settings_of(folder), [TEXT], lambda done, total: None).importance
    with open_checkpoint(folder) as checkpoint:
        shapes = {name: checkpoint.info(name).shape for name in checkpoint.names()}
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2 and "layers" in name}
    assert {name: (len(values),) for name, values in found.items()} == {
        name: (shape[1],) for name, shape in matrices.items()
    }
    layer = "model.layers.2.self_attn."
    assert np.array_equal(found[f"{layer}q_proj.weight"], found[f"{layer}v_proj.weight"])
    assert all((values >= 0).all() and values.any() for values in found.values())


def test_squares_are_those_of_the_inputs_that_a_reference_sees(tmp_path: Path) -> None:
    """The first layer's q, k and v read the normed embedding, which is easily computed by hand."""
    folder = hf_folder(tmp_path / "model", "gemma")
    ops = ReferenceOps()
    recording = ActivationOps(ops)
    model = load_gemma(folder, ops, "f32")
    ids = [2, 9, 40, 7]
    window = RunningWindow(model.with_ops(recording), recording, None, 8)
    window.extend(ids[:3], 1)
    window.extend(ids[3:], 1)
    with open_checkpoint(folder) as checkpoint:
        x = checkpoint.tensor("model.embed_tokens.weight")[ids] * np.float32(model.config.embed_scale)
        norm = checkpoint.tensor("model.layers.0.input_layernorm.weight") + 1
    normed = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-6) * norm
    (q, _, _) = model.adapter_weights()[1]
    assert recording.mean_square(q) == pytest.approx((normed**2).mean(axis=0), rel=1e-4)


def test_recording_does_not_change_what_is_computed(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "model")
    ops = CpuOps(1)
    model = load_gemma(folder, ops, "w8")
    recording = ActivationOps(ops)
    rows = [RunningWindow(model.with_ops(one), one, None, 8).extend([2, 5, 9], 3) for one in (ops, recording)]
    assert np.array_equal(rows[0], rows[1])


def test_a_calibrated_file_differs_and_says_so(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "model")
    base = BaseModel.open(folder, settings_of(folder))
    calibration = calibrate(base, settings_of(folder), [TEXT], lambda done, total: None)
    pack(folder, tmp_path / "plain", "w4")
    pack(folder, tmp_path / "calibrated", "w4", calibration=calibration)
    assert (tmp_path / "plain").read_bytes() != (tmp_path / "calibrated").read_bytes()
    assert b'calibrated\\":true' in (tmp_path / "calibrated").read_bytes()[:4000]
    assert not np.array_equal(logits(tmp_path / "plain"), logits(tmp_path / "calibrated"))
    other = calibrate(base, settings_of(folder), [Text("b", TEXT.content + "!")], lambda done, total: None)
    assert other.digest != calibration.digest


def test_a_text_of_one_token_is_refused(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "model")
    base = BaseModel.open(folder, settings_of(folder))
    with pytest.raises(EvaluationError, match="short has 1 token; at least 2 are needed to calibrate"):
        calibrate(base, settings_of(folder), [Text("short", "e")], lambda done, total: None)


def test_too_little_memory_to_calibrate_is_reported_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "model")
    base, little = BaseModel.open(folder, settings_of(folder)), AvailableMemory(10**6, "a limit of the test")
    with pytest.raises(NotEnoughMemoryError, match=r"to calibrate: .* 1 MB available \(a limit of the test\): weights"):
        calibrate(base, settings_of(folder), [TEXT], lambda done, total: None, little)
