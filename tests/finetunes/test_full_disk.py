"""A data folder on a file system that is really full: the error names the cause, nothing is kept, and it recovers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from intaglio.errors import DataFolderError, StorageFullError
from intaglio.finetunes import FinetuneState, FinetuneStore
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.model.config import ModelConfig
from intaglio.request import VerifiedAdapter
from tests.finetunes.conftest import CONFIG, WEIGHTS, add, create, digest_in, stored_files, verifies

SIZE = 2 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own, of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    """Fill the disk up to its last `leave` bytes; the file that fills it."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        while (free := _free_bytes(folder) - leave) > 0:
            file.write(bytes(min(free, 1 << 16)))
    return path


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def test_an_upload_that_does_not_fit_is_removed_and_accepted_once_space_is_free(
    small: Path, adapter_folder: Path, base_config: ModelConfig
) -> None:
    store = FinetuneStore(small, AdapterLimits(), max_finetunes=3)
    create(store)
    half = add(store, adapter_folder / CONFIG, base_config)
    files = stored_files(small)
    filler = fill(small, leave=4096)
    with pytest.raises(StorageFullError, match="disk is full"):
        add(store, adapter_folder / WEIGHTS, base_config)
    assert stored_files(small) == files
    assert store.find("acc", "mine").files == half.files
    filler.unlink()
    assert store.find("acc", "mine") == half
    assert add(store, adapter_folder / WEIGHTS, base_config).state is FinetuneState.READY
    store.close()


def test_a_disk_that_fills_while_an_upload_is_verified_leaves_it_as_it_was(
    small: Path, adapter_folder: Path, base_config: ModelConfig
) -> None:
    """The rows do not fit either, so the check cannot even be ended."""
    store = FinetuneStore(small, AdapterLimits(), max_finetunes=3)
    create(store)
    half = add(store, adapter_folder / CONFIG, base_config)
    files = stored_files(small)
    fillers = []

    def filled(folder: str) -> VerifiedAdapter:
        fillers.append(fill(small))
        return verifies(base_config)(folder)

    with pytest.raises(StorageFullError, match="disk is full"):
        add(store, adapter_folder / WEIGHTS, base_config, verify=filled)
    assert stored_files(small) == files
    fillers[0].unlink()
    found = store.find("acc", "mine")
    assert (found.state, found.files) == (FinetuneState.AWAITING_FILES, half.files)
    ready = add(store, adapter_folder / WEIGHTS, base_config)
    assert ready.current is not None
    assert digest_in(ready.current.folder, base_config) == ready.digest
    store.close()


def test_a_start_on_a_full_disk_is_refused_with_the_reason(small: Path) -> None:
    FinetuneStore(small, AdapterLimits(), max_finetunes=3).close()
    filler = fill(small)
    with pytest.raises(DataFolderError, match=r"finetunes\.db cannot be used .*: the server's disk is full"):
        FinetuneStore(small, AdapterLimits(), max_finetunes=3)
    filler.unlink()
    FinetuneStore(small, AdapterLimits(), max_finetunes=3).close()
