"""Adapter folders with links, pipes and devices: only regular files are read, and opening never blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig
from tests.helpers.paused_check import DEADLINE_S, in_thread
from tests.hostile.case import CONFIG, WEIGHTS
from tests.hostile.cases.folders import FOLDERS, HostileFolder, released
from tests.hostile.good_adapter import Files


@pytest.fixture
def folder(tmp_path: Path, good: Files) -> Iterator[Path]:
    """The good adapter's folder."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / CONFIG).write_bytes(good.config)
    (folder / WEIGHTS).write_bytes(good.weights)
    with released(folder):
        yield folder


def read(folder: Path, base: ModelConfig) -> LoraAdapter:
    """Read the adapter in a thread, since an open that waits for a pipe's other end cannot be interrupted."""
    return in_thread(lambda: read_peft_adapter(folder, base, AdapterLimits())).result(DEADLINE_S)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("hostile", FOLDERS, ids=[hostile.name for hostile in FOLDERS])
def test_a_path_that_is_not_a_regular_file_is_refused_by_name(
    folder: Path, base: ModelConfig, hostile: HostileFolder, name: str
) -> None:
    (folder / name).unlink()
    hostile.make(folder / name)
    with pytest.raises(AdapterError, match=hostile.complaint) as refused:
        read(folder, base)
    assert name in str(refused.value)


def test_a_snapshot_of_links_into_a_store_is_read(folder: Path, base: ModelConfig, tmp_path: Path) -> None:
    expected = read(folder, base).digest
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, name in enumerate((CONFIG, WEIGHTS)):
        (folder / name).rename(blobs / str(number))
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    assert read(snapshot, base).digest == expected
    link = tmp_path / "link"
    link.symlink_to(snapshot)
    assert read(link, base).digest == expected


@pytest.mark.parametrize(
    "make",
    [Path.touch, os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: None],
    ids=["a file", "a pipe", "a device", "nothing"],
)
def test_a_path_that_is_not_a_folder_is_refused_by_name(tmp_path: Path, base: ModelConfig, make: object) -> None:
    path = tmp_path / "adapter"
    make(path)  # type: ignore[operator]
    with pytest.raises(AdapterError, match="adapter folder adapter does not exist"):
        read(path, base)
