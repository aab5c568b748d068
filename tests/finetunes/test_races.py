"""Simultaneous uploads, deletes, downloads and reads, in an order that events fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.errors import AdapterError, FinetuneError, FinetuneNotFoundError
from intaglio.finetunes import FinetuneState, FinetuneStore
from intaglio.finetunes.db.repository import FinetuneRepository
from intaglio.lora.peft.reader import ReadStep
from intaglio.model.config import ModelConfig
from tests.finetunes.conftest import (
    CONFIG,
    MODEL,
    WEIGHTS,
    OpenStore,
    add,
    add_both,
    create,
    digest_in,
    stored_files,
)
from tests.helpers.paused_check import DEADLINE_S, PausedCheck, in_thread

OF_A_PAIR = [ReadStep.CONFIG, ReadStep.HEADER, ReadStep.NAMES, ReadStep.SHAPES]


@pytest.mark.parametrize("step", OF_A_PAIR)
def test_a_finetune_shows_the_step_of_its_check(
    store: FinetuneStore,
    adapter_folder: Path,
    base_config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
    step: ReadStep,
) -> None:
    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    held = PausedCheck(monkeypatch, step)
    upload = in_thread(lambda: add(store, adapter_folder / WEIGHTS, base_config))
    assert held.reached.wait(DEADLINE_S)
    found = store.find("acc", "mine")
    assert found.state is FinetuneState.CHECKING
    assert found.candidate is not None
    assert found.candidate.check is not None
    assert (found.candidate.check.file_name, found.candidate.check.step) == (WEIGHTS, step.value)
    assert found.candidate.check.started_at < found.candidate.check.step_since
    held.resume.set()
    upload.result(DEADLINE_S)
    assert held.steps == OF_A_PAIR
    assert store.find("acc", "mine").candidate is None


def test_an_old_version_serves_while_its_successor_is_checked_or_fails(
    store: FinetuneStore,
    adapter_folder: Path,
    new_folder: Path,
    base_config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    create(store)
    old = add_both(store, adapter_folder, base_config)
    add(store, new_folder / CONFIG, base_config)
    bad = tmp_path / WEIGHTS
    bad.write_bytes((new_folder / WEIGHTS).read_bytes()[:-1])
    held = PausedCheck(monkeypatch, ReadStep.HEADER)
    upload = in_thread(lambda: add(store, bad, base_config))
    assert held.reached.wait(DEADLINE_S)
    found = store.find("acc", "mine")
    assert (found.state, found.digest) == (FinetuneState.READY, old.digest)
    assert found.pending is not None
    assert found.pending.state is FinetuneState.CHECKING
    assert store.resolve("acc", "mine", MODEL).digest == old.digest
    held.resume.set()
    with pytest.raises(AdapterError):
        upload.result(DEADLINE_S)
    assert store.resolve("acc", "mine", MODEL).digest == old.digest


def test_a_delete_does_not_wait_for_a_check_and_nothing_of_the_upload_stays(
    data: Path, store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    held = PausedCheck(monkeypatch, ReadStep.SHAPES)
    upload = in_thread(lambda: add(store, adapter_folder / WEIGHTS, base_config))
    assert held.reached.wait(DEADLINE_S)
    store.delete("acc", "mine")
    namesake = create(store)
    held.resume.set()
    with pytest.raises(FinetuneNotFoundError, match="Finetune mine not found"):
        upload.result(DEADLINE_S)
    assert stored_files(data) == []
    assert store.find("acc", "mine") == namesake


def test_a_delete_while_a_bad_file_is_checked_leaves_nothing(
    data: Path,
    store: FinetuneStore,
    adapter_folder: Path,
    base_config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    bad = tmp_path / WEIGHTS
    bad.write_bytes((adapter_folder / WEIGHTS).read_bytes()[:-1])
    held = PausedCheck(monkeypatch, ReadStep.HEADER)
    upload = in_thread(lambda: add(store, bad, base_config))
    assert held.reached.wait(DEADLINE_S)
    store.delete("acc", "mine")
    held.resume.set()
    with pytest.raises(AdapterError):
        upload.result(DEADLINE_S)
    assert stored_files(data) == []
    with pytest.raises(FinetuneNotFoundError):
        store.find("acc", "mine")


def test_a_bad_file_does_not_affect_a_version_that_another_server_verified_meanwhile(
    data: Path,
    store: FinetuneStore,
    open_store: OpenStore,
    adapter_folder: Path,
    base_config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    second = open_store()
    bad = tmp_path / WEIGHTS
    bad.write_bytes((adapter_folder / WEIGHTS).read_bytes()[:-1])
    with monkeypatch.context() as patched:
        held = PausedCheck(patched, ReadStep.HEADER)
        upload = in_thread(lambda: add(store, bad, base_config))
        assert held.reached.wait(DEADLINE_S)
    ready = add(second, adapter_folder / WEIGHTS, base_config)
    assert ready.files.keys() == {CONFIG, WEIGHTS}
    held.resume.set()
    with pytest.raises(AdapterError):
        upload.result(DEADLINE_S)
    assert store.find("acc", "mine") == ready
    with store.open_file("acc", "mine", WEIGHTS).file as file:
        assert file.read() == (adapter_folder / WEIGHTS).read_bytes()


def test_an_upload_whose_finetune_is_deleted_before_its_files_are_joined_is_not_found(
    data: Path, store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = create(store)
    add(store, adapter_folder / CONFIG, base_config)
    begin_check = FinetuneRepository.begin_check

    def deleted_after(repository: FinetuneRepository, *arguments: object) -> None:
        begin_check(repository, *arguments)  # type: ignore[arg-type]
        store.delete("acc", made.id)

    monkeypatch.setattr(FinetuneRepository, "begin_check", deleted_after)
    with pytest.raises(FinetuneNotFoundError):
        add(store, adapter_folder / WEIGHTS, base_config)
    assert stored_files(data) == []


@pytest.mark.parametrize("same", [True, False])
def test_of_two_racing_uploads_of_one_file_exactly_one_is_kept(
    data: Path,
    store: FinetuneStore,
    open_store: OpenStore,
    adapter_folder: Path,
    new_folder: Path,
    base_config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
    same: bool,
) -> None:
    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    second = open_store()  # two servers: no lock of the API is between them
    held = PausedCheck(monkeypatch, ReadStep.SHAPES)
    slow = in_thread(lambda: add(store, adapter_folder / WEIGHTS, base_config))
    assert held.reached.wait(DEADLINE_S)
    monkeypatch.undo()
    fast = add(second, (adapter_folder if same else new_folder) / WEIGHTS, base_config)
    held.resume.set()
    with pytest.raises(FinetuneError, match=r"mine.*changed.*upload it again"):
        slow.result(DEADLINE_S)
    assert store.find("acc", "mine") == fast
    ref = store.resolve("acc", "mine", MODEL)
    assert digest_in(ref.folder, base_config) == ref.digest == fast.digest
    assert len(stored_files(data)) == 4  # two blobs, and their names in one folder


def test_an_upload_whose_other_file_is_replaced_during_its_check_is_refused(
    data: Path,
    store: FinetuneStore,
    open_store: OpenStore,
    adapter_folder: Path,
    new_folder: Path,
    base_config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    second = open_store()
    held = PausedCheck(monkeypatch, ReadStep.SHAPES)
    upload = in_thread(lambda: add(store, adapter_folder / WEIGHTS, base_config))
    assert held.reached.wait(DEADLINE_S)
    replaced = add(second, new_folder / CONFIG, base_config)
    held.resume.set()
    with pytest.raises(FinetuneError, match=r"mine.*changed.*upload it again"):
        upload.result(DEADLINE_S)
    assert store.find("acc", "mine").files == replaced.files
    assert [path.name for path in stored_files(data)] == [replaced.files[CONFIG].sha256]


def test_files_in_place_are_safe_from_a_delete_until_their_row_is_there(
    data: Path, store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store, "one")
    add_both(store, adapter_folder, base_config, "one")
    create(store, "two")
    add(store, adapter_folder / CONFIG, base_config, "two")
    promote = FinetuneRepository.promote
    deletes = []

    def promote_beside_a_delete(repository: FinetuneRepository, *arguments: object) -> None:
        deletes.append(in_thread(lambda: store.delete("acc", "one")))
        with pytest.raises(TimeoutError):
            deletes[0].result(0.05)  # it waits, since the files of "two" are there and its row is not
        promote(repository, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(FinetuneRepository, "promote", promote_beside_a_delete)
    two = add(store, adapter_folder / WEIGHTS, base_config, "two")
    deletes[0].result(DEADLINE_S)
    ref = store.resolve("acc", "two", MODEL)
    assert digest_in(ref.folder, base_config) == two.digest
    assert len(stored_files(data)) == 4


def test_a_download_under_way_survives_a_delete(
    data: Path, store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    add_both(store, adapter_folder, base_config)
    opened = store.open_file("acc", "mine", WEIGHTS)
    with opened.file as file:
        begun = file.read(100)
        store.delete("acc", "mine")
        assert stored_files(data) == []
        assert begun + file.read() == (adapter_folder / WEIGHTS).read_bytes()


def test_a_file_deleted_just_before_it_is_opened_is_not_found(
    store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store)
    add_both(store, adapter_folder, base_config)
    find = FinetuneRepository.find
    calls = []

    def found_then_deleted(repository: FinetuneRepository, account: str, name_or_id: str) -> object:
        found = find(repository, account, name_or_id)
        if not calls:
            calls.append(name_or_id)
            store.delete(account, name_or_id)
        return found

    monkeypatch.setattr(FinetuneRepository, "find", found_then_deleted)
    with pytest.raises(FinetuneNotFoundError):
        store.open_file("acc", "mine", WEIGHTS)
