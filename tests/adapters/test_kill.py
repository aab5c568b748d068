"""The process dies at every step of an upload, a replacement and a delete; the next start finds old or new, whole."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from intaglio.adapters import AdapterStore, FinetuneState
from intaglio.errors import FinetuneNotFoundError
from intaglio.lora.peft import AdapterLimits
from intaglio.model.config import ModelConfig
from tests.adapters.conftest import CONFIG, MODEL, WEIGHTS, add, add_both, create, digest_in, stored_files

# Points at which an upload dies, in the order in which they come. Before the commit all is as it was.
UPLOAD_POINTS = [
    "intaglio.adapters.catalogue.Catalogue.begin_check",
    "intaglio.adapters.intake.read_peft_adapter",
    "intaglio.lora.packed.PackedAdapters.keep",
    "intaglio.adapters.files.FileStore.keep",
    "intaglio.adapters.files.FileStore.keep_folder",
    "intaglio.adapters.catalogue.Catalogue.promote",
]
REMOVAL = "intaglio.adapters.files.FileStore.remove"  # comes after every commit

DYING = """
import os, signal, sys
from pathlib import Path
from unittest import mock
from intaglio.adapters import AdapterStore
from intaglio.lora.peft import AdapterLimits
from intaglio.model.config import config_from_hf
from tests.adapters.conftest import add
from tests.helpers.checkpoints import tiny_config

data, weights, point = sys.argv[1:]
die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
store = AdapterStore(Path(data), AdapterLimits(), 3)
with mock.patch(point, die):
    if weights == "delete":
        store.delete("acc", "mine")
    else:
        add(store, Path(weights), config_from_hf(tiny_config("gemma")))
"""


def die_at(point: str, data: Path, act: str | Path) -> None:
    """Upload a file, or delete, in another process that is killed when it gets to `point`."""
    command = [sys.executable, "-c", DYING, str(data), str(act), point]
    died = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, capture_output=True, timeout=60)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()


def reopened(data: Path) -> AdapterStore:
    return AdapterStore(data, AdapterLimits(), max_finetunes=3)


@pytest.mark.parametrize("point", UPLOAD_POINTS)
def test_a_first_upload_killed_before_its_commit_leaves_the_old_state(
    data: Path, store: AdapterStore, adapter_folder: Path, base_config: ModelConfig, point: str
) -> None:
    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    before = stored_files(data)
    store.close()
    die_at(point, data, adapter_folder / WEIGHTS)
    assert stored_files(data) != before
    again = reopened(data)
    assert stored_files(data) == before
    assert again.find("acc", "mine").state is FinetuneState.AWAITING_FILES
    assert add(again, adapter_folder / WEIGHTS, base_config).state is FinetuneState.READY
    again.close()


@pytest.mark.parametrize("point", UPLOAD_POINTS[-2:])
def test_a_replacement_killed_before_its_commit_leaves_the_old_generation_and_the_candidate(
    data: Path, adapter_folder: Path, new_folder: Path, base_config: ModelConfig, point: str
) -> None:
    store = reopened(data)
    create(store)
    old = add_both(store, adapter_folder, base_config)
    half = add(store, new_folder / CONFIG, base_config)
    before = stored_files(data)
    store.close()
    die_at(point, data, new_folder / WEIGHTS)
    assert stored_files(data) != before
    again = reopened(data)
    assert stored_files(data) == before  # the sweep left the candidate's file
    assert again.find("acc", "mine") == half
    assert again.resolve("acc", "mine", MODEL).digest == old.digest
    assert add(again, new_folder / WEIGHTS, base_config).digest == digest_in(new_folder, base_config)
    again.close()


def test_a_replacement_killed_after_its_commit_is_the_new_generation(
    data: Path, adapter_folder: Path, new_folder: Path, base_config: ModelConfig
) -> None:
    store = reopened(data)
    create(store)
    add_both(store, adapter_folder, base_config)
    add_both(store, new_folder, base_config)
    add(store, adapter_folder / CONFIG, base_config)
    store.close()
    die_at(REMOVAL, data, adapter_folder / WEIGHTS)
    again = reopened(data)
    found = again.find("acc", "mine")
    assert found.current is not None
    assert (found.current.number, found.digest) == (3, digest_in(adapter_folder, base_config))
    assert digest_in(again.resolve("acc", "mine", MODEL).folder, base_config) == found.digest
    again.close()


@pytest.mark.parametrize("point", ["intaglio.adapters.catalogue.Catalogue.delete", REMOVAL])
def test_a_killed_delete_took_all_or_nothing(
    data: Path, adapter_folder: Path, new_folder: Path, base_config: ModelConfig, point: str
) -> None:
    store = reopened(data)
    create(store)
    old = add_both(store, adapter_folder, base_config)
    add(store, new_folder / CONFIG, base_config)
    before = stored_files(data)
    store.close()
    die_at(point, data, "delete")
    assert stored_files(data) == before
    again = reopened(data)
    if point == REMOVAL:
        with pytest.raises(FinetuneNotFoundError):
            again.resolve("acc", "mine", MODEL)
        assert stored_files(data) == []
    else:
        assert again.resolve("acc", "mine", MODEL).digest == old.digest
        assert stored_files(data) == before
    again.close()
