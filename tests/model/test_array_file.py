"""What `test_packed.py` does not see through packed weights: the contract of the file itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from intaglio.model import array_file
from intaglio.model.array_file import read_arrays, write_arrays

ARRAYS = {"odd": np.arange(7, dtype=np.uint8), "grid": np.arange(6, dtype=np.float16).reshape(2, 3)}


@pytest.mark.parametrize("large_bytes", [1, 1 << 30])
def test_arrays_come_back_aligned_read_only_and_in_order(
    tmp_path: Path, large_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "file"
    write_arrays(path, 3, "key", ARRAYS)
    monkeypatch.setattr("intaglio.model.array_file._LARGE_BYTES", large_bytes)  # in large pages, and in small ones
    found = read_arrays(path, 3, "key")
    assert found is not None
    assert list(found) == list(ARRAYS)
    for name, array in found.items():
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.dtype == ARRAYS[name].dtype
        assert array.ctypes.data % 64 == 0
        assert not array.flags.writeable


@pytest.mark.parametrize(("version", "key"), [(4, "key"), (3, "other")])
def test_another_version_or_key_is_not_there(tmp_path: Path, version: int, key: str) -> None:
    write_arrays(tmp_path / "file", 3, "key", ARRAYS)
    assert read_arrays(tmp_path / "file", version, key) is None


def test_arrays_read_into_memory_hold_no_file_and_outlive_what_becomes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_arrays(path, 3, "key", ARRAYS)
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = read_arrays(path, 3, "key")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    path.write_bytes(b"")
    assert found is not None
    np.testing.assert_array_equal(found["grid"], ARRAYS["grid"])


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_arrays(path, 3, "key", ARRAYS)

    def disk_full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_file.os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        write_arrays(path, 3, "key", {"other": ARRAYS["odd"]})
    assert list(tmp_path.iterdir()) == [path]
    found = read_arrays(path, 3, "key")
    assert found is not None and found.keys() == ARRAYS.keys()
