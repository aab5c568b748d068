"""A packed adapter is read back exactly as it was written, with its verification, and never a damaged or another
one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.lora import cache as packed_module
from intaglio.lora.cache import PackedAdapter, PackedAdapters
from tests.helpers.verifications import VERIFICATION

DIGEST, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4


def adapter(seed: int = 1) -> PackedAdapter:
    values = np.random.default_rng(seed).integers(0, 255, 5000).astype(np.uint8)
    return PackedAdapter(VERIFICATION, {"values": values, "vectors": np.arange(7, dtype=np.float32)})


def store_in(folder: Path, served_by: str = "a base, kernels, a version") -> PackedAdapters:
    return PackedAdapters(folder, "float16", served_by)


def assert_same(left: PackedAdapter | None, right: PackedAdapter) -> None:
    assert left is not None
    assert left.verification == right.verification
    assert left.arrays.keys() == right.arrays.keys()
    assert left.nbytes == right.nbytes
    for name, array in left.arrays.items():
        assert array.dtype == right.arrays[name].dtype
        assert np.array_equal(array, right.arrays[name])


def test_a_written_adapter_is_read_back_with_its_verification(tmp_path: Path) -> None:
    store_in(tmp_path).write(DIGEST, adapter())
    assert_same(store_in(tmp_path).read(DIGEST), adapter())


def test_each_adapter_type_and_way_of_serving_has_a_file_of_its_own(tmp_path: Path) -> None:
    store_in(tmp_path).write(DIGEST, adapter())
    assert store_in(tmp_path).read(OTHER) is None
    assert store_in(tmp_path).read(DIGEST[:32] + OTHER[32:]) is None
    assert store_in(tmp_path, "another base").read(DIGEST) is None
    assert PackedAdapters(tmp_path, "int8", "a base, kernels, a version").read(DIGEST) is None
    store_in(tmp_path, "another base").write(DIGEST, adapter(2))
    assert_same(store_in(tmp_path).read(DIGEST), adapter())


@given(position=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_file_with_any_byte_changed_is_never_trusted(
    position: int, flip: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("packed")
    store = store_in(folder)
    store.write(DIGEST, adapter())
    (path,) = folder.iterdir()
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= flip
    path.write_bytes(bytes(data))
    read = store.read(DIGEST)
    if read is not None:
        assert_same(read, adapter())


@pytest.mark.parametrize("kept_bytes", [0, 7, 100, 5000])
def test_a_truncated_file_counts_as_not_there(tmp_path: Path, kept_bytes: int) -> None:
    store = store_in(tmp_path)
    store.write(DIGEST, adapter())
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:kept_bytes])
    assert store.read(DIGEST) is None


def test_a_file_of_another_version_counts_as_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(tmp_path)
    store.write(DIGEST, adapter())
    monkeypatch.setattr(packed_module, "VERSION", packed_module.VERSION + 1)
    assert store.read(DIGEST) is None


def test_a_folder_that_cannot_be_written_to_only_logs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    store_in(tmp_path / "file" / "packed").write(DIGEST, adapter())
    assert "could not be written to" in caplog.text


def test_only_files_unread_for_a_month_are_removed(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.write(DIGEST, adapter(1))
    store.write(OTHER, adapter(2))
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    assert store.read(DIGEST) is not None
    unfinished, neighbour = tmp_path / ".packing-abc", tmp_path / "notes.txt"
    for path in (unfinished, neighbour):
        path.write_text("x")
        os.utime(path, (1, 1))
    assert store.sweep() == 2
    assert store.read(DIGEST) is not None
    assert store.read(OTHER) is None
    assert (unfinished.exists(), neighbour.exists()) == (False, True)
    assert store_in(tmp_path / "nowhere").sweep() == 0


def test_the_files_take_half_of_the_free_disk_and_the_longest_unread_are_removed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(tmp_path)
    digests = [f"{number:x}" * 64 for number in range(6)]
    for age, digest in zip((3, 5, 1, 4, 2), digests, strict=False):
        store.write(digest, adapter())
        (path,) = tmp_path.glob(f"{digest[:32]}*")
        os.utime(path, (time.time() - 3600 * age,) * 2)
    size = path.stat().st_size
    in_use = store.read(digests[1])
    monkeypatch.setattr(packed_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * size))
    store.write(digests[5], adapter())  # six files and space for two more: four stay
    assert [store.read(digest) is not None for digest in digests] == [True, False, True, False, True, True]
    assert_same(in_use, adapter())
