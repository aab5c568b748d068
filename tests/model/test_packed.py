from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from intaglio.model.array_file import write_arrays
from intaglio.model.footprint import weights_footprint
from intaglio.model.loader import load_gemma
from intaglio.model.packed import VERSION, PackedFile, packed_key
from intaglio.model.packing.pack import pack
from intaglio.model.weights import open_checkpoint
from intaglio.ops.cpu import CpuOps
from tests.helpers.checkpoints import random_weights, tiny_config, write_gguf, write_hf_folder
from tests.helpers.forward import Prompt, run_prompts
from tests.helpers.kernels import chosen_ops

ARRAYS = {"values": np.arange(1000, dtype=np.uint8), "scales": np.arange(12, dtype=np.uint16).reshape(1, 3, 4)}
PROMPT = [Prompt([2, 10, 20, 30, 40])]


def written(folder: Path) -> Path:
    file = PackedFile(folder, "k" * 64)
    file.put("a.matrix", ARRAYS)
    file.save()
    (path,) = folder.glob("*.packed")
    return path


def test_saved_weights_are_read_back(tmp_path: Path) -> None:
    written(tmp_path)
    file = PackedFile(tmp_path, "k" * 64)
    assert file.is_complete
    found = file.get("a.matrix")
    assert found is not None
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert file.get("another.matrix") is None


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_file_with_any_byte_changed_is_packed_again_never_trusted(position: int, flip: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder))
        data = bytearray(path.read_bytes())
        data[position % len(data)] ^= flip
        path.write_bytes(bytes(data))
        file = PackedFile(Path(folder), "k" * 64)
        found = file.get("a.matrix")
        assert found is None or all(np.array_equal(found[name], ARRAYS[name]) for name in ARRAYS)


@pytest.mark.parametrize("length", [0, 1, 7, 100, 1020, 1200])
def test_a_truncated_file_is_packed_again(tmp_path: Path, length: int) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    file = PackedFile(tmp_path, "k" * 64)
    assert not file.is_complete
    file.put("a.matrix", ARRAYS)
    file.save()
    assert PackedFile(tmp_path, "k" * 64).is_complete


def test_another_key_is_another_file(tmp_path: Path) -> None:
    written(tmp_path)
    assert not PackedFile(tmp_path, "l" * 64).is_complete


def test_the_key_changes_with_the_files_the_format_and_the_layout(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"one")
    key = packed_key(model, "auto", "tiles")
    assert packed_key(model, "w8", "tiles") != key
    assert packed_key(model, "auto", "float32") != key
    os.utime(model, ns=(1, 1))
    assert packed_key(model, "auto", "tiles") != key


@pytest.mark.parametrize("fmt", ["w8", "w4"])
def test_a_model_from_its_packed_file_computes_the_same_bits(tmp_path: Path, fmt: str) -> None:
    config = tiny_config("gemma3_text")
    folder = write_hf_folder(tmp_path / "model", config, random_weights(config, 3))
    ops = chosen_ops(1)
    first = run_prompts(load_gemma(folder, ops, fmt, packed_dir=tmp_path / "packed"), PROMPT, ops=ops)  # type: ignore[arg-type]
    assert len(list((tmp_path / "packed").glob("*.packed"))) == 1
    second = run_prompts(load_gemma(folder, ops, fmt, packed_dir=tmp_path / "packed"), PROMPT, ops=ops)  # type: ignore[arg-type]
    np.testing.assert_array_equal(first[0], second[0])


def damaged(path: Path, key: str) -> dict[str, bytes]:
    """Invalid contents of the packed file of a key, by name."""
    good = path.read_bytes()
    arrays = {"model.embed_tokens/values": np.arange(64, dtype=np.uint8)}
    made = {}
    for name, version, its_key in (("another version", VERSION + 1, key), ("another model's", VERSION, "k" * 64)):
        write_arrays(path.with_name("other"), version, its_key, arrays)
        made[name] = path.with_name("other").read_bytes()
        path.with_name("other").unlink()
    header = b'{"layout":"of a later release"}'
    tail = hashlib.sha256(header).digest() + len(header).to_bytes(8, "little") + b"INTAGLIO"
    return {
        "empty": b"",
        "half": good[: len(good) // 2],
        "without its last byte": good[:-1],
        "without its first byte": good[1:],
        "one bit changed": good[:100] + bytes([good[100] ^ 1]) + good[101:],
        "another file": b"\x00" * len(good),
        "another kind of header": bytes(64) + header + tail,
        **made,
    }


DAMAGES = [
    "empty", "half", "without its last byte", "without its first byte", "one bit changed", "another file",
    "another kind of header", "another version", "another model's",
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_model_with_a_damaged_packed_file_loads_as_without_the_file(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config("gemma3_text")
    folder = write_hf_folder(tmp_path / "model", config, random_weights(config, 3))
    ops = chosen_ops(1)

    def logits() -> NDArray[np.float32]:
        return run_prompts(load_gemma(folder, ops, "w8", packed_dir=tmp_path / "packed"), PROMPT, ops=ops)[0]

    expected = logits()
    (path,) = (tmp_path / "packed").iterdir()
    good = path.read_bytes()
    content = damaged(path, packed_key(folder, "w8", ops.layout))[damage]
    path.write_bytes(content)
    np.testing.assert_array_equal(logits(), expected)
    assert path.read_bytes() == good, "it was not made again"
    assert damage == "empty" or path.name in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(logits(), expected)
    assert caplog.text == ""


def test_weights_that_changed_in_place_are_packed_again(tmp_path: Path) -> None:
    config = tiny_config("gemma3_text")
    ops = chosen_ops(1)
    for seed in (3, 4):
        folder = write_hf_folder(tmp_path / "model", config, random_weights(config, seed))
        fresh = run_prompts(load_gemma(folder, ops, "w8"), PROMPT, ops=ops)[0]
        packed = run_prompts(load_gemma(folder, ops, "w8", packed_dir=tmp_path / "packed"), PROMPT, ops=ops)[0]
        np.testing.assert_array_equal(packed, fresh)


def test_a_folder_that_cannot_be_written_to_only_logs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    file = PackedFile(blocked / "packed", "k" * 64)
    file.put("a.matrix", ARRAYS)
    file.save()
    assert "could not be written to" in caplog.text


@pytest.mark.parametrize("storage", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_the_file_is_as_large_as_the_footprint_says(storage: str, tmp_path: Path) -> None:
    config = tiny_config("gemma3_text", vocab_size=1024, hidden_size=256, intermediate_size=544, num_hidden_layers=2)
    source = write_gguf(tmp_path / "model.gguf", config, random_weights(config), storage)
    packed = pack(source, tmp_path / "model.packed", "w4").path
    for path, fmt in (source, "auto"), (source, "w4"), (source, "w8"), (packed, "auto"):
        with open_checkpoint(path) as checkpoint:
            tensors = {name: checkpoint.info(name) for name in checkpoint.names()}
        norms = sum(4 * info.shape[0] for info in tensors.values() if len(info.shape) == 1)
        expected = weights_footprint(tensors, fmt, widened=False, is_packed=True).weights - norms
        folder = tmp_path / f"{path.name}-{fmt}"
        load_gemma(path, CpuOps(1), fmt, packed_dir=folder)
        (file,) = folder.glob("*.packed")
        assert file.stat().st_size == pytest.approx(expected, rel=0.01)
