"""Properties of array files that `test_packed.py` does not test through packed weights."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
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
def test_a_file_of_another_version_or_key_is_not_found(tmp_path: Path, version: int, key: str) -> None:
    write_arrays(tmp_path / "file", 3, "key", ARRAYS)
    assert read_arrays(tmp_path / "file", version, key) is None


def test_arrays_read_into_memory_keep_no_file_open_and_stay_valid_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_arrays(path, 3, "key", ARRAYS)
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = read_arrays(path, 3, "key")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    path.write_bytes(b"")
    assert found is not None
    np.testing.assert_array_equal(found["grid"], ARRAYS["grid"])


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """A limit of open files that leaves five for maps, besides those in use and RESERVED_DESCRIPTORS."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    few = in_use + array_file.RESERVED_DESCRIPTORS + 5
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
    yield few
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_without_free_descriptors_files_are_read_and_others_can_still_be_opened(
    tmp_path: Path, few_descriptors: int
) -> None:
    path = tmp_path / "file"
    write_arrays(path, 3, "key", ARRAYS)
    held = [read_arrays(path, 3, "key", mapped=True) for _ in range(few_descriptors)]
    for found in held:
        assert found is not None
        np.testing.assert_array_equal(found["grid"], ARRAYS["grid"])
    with contextlib.ExitStack() as others:
        for _ in range(array_file.RESERVED_DESCRIPTORS - 5):
            others.enter_context(path.open("rb"))


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
