"""Unreferenced files are removed, at the start and while servers run; files of a running upload never are."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from intaglio.errors import AdapterError, FinetuneError, FinetuneNotFoundError
from intaglio.finetunes import FinetuneState, FinetuneStore
from intaglio.model.config import ModelConfig
from intaglio.request import VerifiedAdapter
from tests.finetunes.conftest import (
    CONFIG,
    MODEL,
    WEIGHTS,
    OpenStore,
    SetClock,
    add,
    add_both,
    create,
    digest_in,
    stored_files,
    verifies,
)
from tests.helpers.paused_check import DEADLINE_S, in_thread

# Puts a file and a folder on the way in, says so, and waits to be killed.
DYING = """
import sys
from pathlib import Path
from intaglio.finetunes.storage.staging import StagingFolder

incoming = StagingFolder(Path(sys.argv[1]))
with incoming.new_file() as staged:
    staged.write(b"half of a file")
    staged.finish()
    with incoming.new_folder({"part": staged.path}):
        print("there", flush=True)
        sys.stdin.read()
"""


def test_a_running_server_removes_files_of_a_killed_server_only(
    data: Path, store: FinetuneStore, clock: SetClock
) -> None:
    command = [sys.executable, "-c", DYING, str(data / "incoming")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"there\n"
        assert store.collect_garbage() == 0
        assert len(stored_files(data)) == 2
        other.send_signal(signal.SIGKILL)
        other.wait(DEADLINE_S)
        create(store, "one")
        assert len(stored_files(data)) == 2  # not with every change
        clock.now += timedelta(hours=1)
        create(store, "two")
    assert stored_files(data) == []


def test_files_that_an_upload_needs_are_safe_from_another_server(
    data: Path, store: FinetuneStore, open_store: OpenStore, adapter_folder: Path, base_config: ModelConfig
) -> None:
    other = open_store()
    create(store)
    add(store, adapter_folder / CONFIG, base_config)

    def collected_meanwhile(folder: str) -> VerifiedAdapter:
        assert other.collect_garbage() == 0
        assert other.find("acc", "mine").state is FinetuneState.CHECKING  # its server still runs
        return verifies(base_config)(folder)

    ready = add(store, adapter_folder / WEIGHTS, base_config, verify=collected_meanwhile)
    assert digest_in(store.resolve("acc", "mine", MODEL).folder, base_config) == ready.digest


def test_files_without_a_row_are_removed_and_an_abandoned_check_ends(
    data: Path, store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    files = stored_files(data)
    with monkeypatch.context() as broken:
        broken.setattr("intaglio.finetunes.db.repository.FinetuneRepository.end_check", lambda *_: None)
        broken.setattr("intaglio.finetunes.storage.blobs.FileStore.remove", lambda *_: Path("/nowhere").stat())
        broken.setattr(
            "intaglio.finetunes.db.repository.FinetuneRepository.promote", lambda *_: Path("/nowhere").stat()
        )
        with pytest.raises(FileNotFoundError):
            add(store, adapter_folder / WEIGHTS, base_config)
    assert len(stored_files(data)) > len(files)
    assert store.find("acc", "mine").state is FinetuneState.AWAITING_FILES
    assert stored_files(data) == files


def test_servers_that_do_everything_at_once_leave_files_and_rows_that_agree(
    data: Path, open_store: OpenStore, adapter_folder: Path, new_folder: Path, base_config: ModelConfig
) -> None:
    stores = [open_store(), open_store()]

    def act(store: FinetuneStore, seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(12):
            name, folder = choose.choice(["one", "two"]), choose.choice([adapter_folder, new_folder])
            try:
                what = choose.randrange(8)
                if what < 4:
                    add_both(store, folder, base_config, name)
                elif what == 4:
                    store.roll_back("acc", name)
                elif what == 5:
                    store.collect_garbage()
                elif what == 6:
                    store.delete("acc", name)
                else:
                    create(store, name)
            except FinetuneNotFoundError:
                continue
            except (AdapterError, FinetuneError):  # taken, changed meanwhile, or none to go back to
                continue

    create(stores[0], "one")
    running = [in_thread(lambda store=store, seed=seed: act(store, seed)) for seed, store in enumerate(stores * 2)]
    for one in running:
        one.result(2 * DEADLINE_S)
    store = open_store()
    left = store.list_account("acc")
    folders, blobs = set(), set()
    for finetune in left:
        for version in [one for one in (finetune.current, *finetune.earlier) if one is not None]:
            assert digest_in(version.folder, base_config) == version.digest
            folders.add(version.folder.name)
            blobs |= {file.sha256 for file in version.files.values()}
        if finetune.candidate is not None:
            blobs |= {file.sha256 for file in finetune.candidate.files.values()}
            assert finetune.candidate.state is not FinetuneState.CHECKING
    assert {path.name for path in (data / "adapters").iterdir()} == folders
    assert {path.name for path in data.glob("blobs/*/*")} == blobs
    assert list((data / "incoming").iterdir()) == []


def test_one_file_of_two_finetunes_is_stored_once_and_stays_for_the_other(
    data: Path, store: FinetuneStore, open_store: OpenStore, adapter_folder: Path, base_config: ModelConfig
) -> None:
    other = open_store()
    for one, name in ((store, "one"), (other, "two")):
        create(one, name)
        add(one, adapter_folder / CONFIG, base_config, name)
    both = [
        in_thread(lambda one=one, name=name: add(one, adapter_folder / WEIGHTS, base_config, name))
        for one, name in ((store, "one"), (other, "two"))
    ]
    digests = {future.result(DEADLINE_S).digest for future in both}
    assert len(digests) == 1
    assert len(stored_files(data)) == 4
    assert len({path.stat().st_ino for path in stored_files(data)}) == 2
    store.delete("acc", "one")
    assert {digest_in(store.resolve("acc", "two", MODEL).folder, base_config)} == digests
    other.delete("acc", "two")
    assert stored_files(data) == []
