from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from intaglio.errors import (
    AdapterError,
    BadInputError,
    FinetuneError,
    FinetuneNotFoundError,
    FinetuneNotReadyError,
    StorageFullError,
)
from intaglio.finetunes import FinetuneState, FinetuneStore
from intaglio.finetunes.db.repository import FinetuneRepository
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig
from tests.finetunes.conftest import CONFIG, MODEL, WEIGHTS, OpenStore, add, create, stored_files


def test_a_finetune_goes_from_awaiting_to_ready_and_resolves(
    store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig
) -> None:
    made = create(store)
    assert (made.state, made.files.keys()) == (FinetuneState.AWAITING_FILES, set())
    half = add(store, adapter_folder / CONFIG, base_config)
    assert (half.state, half.files.keys()) == (FinetuneState.AWAITING_FILES, {CONFIG})
    ready = add(store, adapter_folder / WEIGHTS, base_config)
    assert (ready.state, ready.files.keys(), ready.candidate) == (FinetuneState.READY, {CONFIG, WEIGHTS}, None)
    assert ready.modified_at > made.created_at
    for key in ("mine", made.id):
        ref = store.resolve("acc", key, MODEL)
        adapter = read_peft_adapter(Path(ref.folder), base_config, AdapterLimits())
        assert ref.digest == adapter.digest == ready.digest


def test_a_store_opened_again_has_everything(
    data: Path, store: FinetuneStore, open_store: OpenStore, adapter_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    for name in (CONFIG, WEIGHTS):
        add(store, adapter_folder / name, base_config)
    before = (store.find("acc", "mine"), store.resolve("acc", "mine", MODEL), stored_files(data))
    store.close()
    again = open_store()
    assert (again.find("acc", "mine"), again.resolve("acc", "mine", MODEL), stored_files(data)) == before


def test_checks_of_a_failed_pair_leave_the_first_file(
    data: Path, store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig, tmp_path: Path
) -> None:
    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    before = stored_files(data)
    bad = tmp_path / WEIGHTS
    bad.write_bytes((adapter_folder / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(AdapterError, match=WEIGHTS):
        add(store, bad, base_config)
    refused = store.find("acc", "mine")
    assert refused.state is FinetuneState.REFUSED
    assert refused.files.keys() == {CONFIG}
    assert stored_files(data) == before
    with pytest.raises(FinetuneNotReadyError, match=f"lacks {WEIGHTS}.*refused: {refused.reason}"):
        store.resolve("acc", "mine", MODEL)


def test_a_fault_of_ours_during_the_check_leaves_the_state_as_it_was(
    store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    monkeypatch.setattr("intaglio.finetunes.storage.blobs.os.link", disk_full)
    with pytest.raises(StorageFullError, match="disk is full"):
        add(store, adapter_folder / WEIGHTS, base_config)
    assert store.find("acc", "mine").state is FinetuneState.AWAITING_FILES


def test_a_second_server_on_the_same_folder_leaves_an_upload_alone(
    data: Path, store: FinetuneStore, open_store: OpenStore
) -> None:
    with store.staging.new_file() as staged:
        staged.write(b"half of a file")
        open_store()
        assert staged.path.exists()
    assert stored_files(data) == []


REFUSALS: list[tuple[Callable[[FinetuneStore], object], type[Exception], str]] = [
    (lambda store: store.find("other", "mine"), FinetuneNotFoundError, "Finetune mine not found"),
    (lambda store: store.resolve("acc", "nobody", MODEL), FinetuneNotFoundError, "Finetune nobody not found"),
    (lambda store: store.resolve("acc", "mine", "@cf/other"), FinetuneError, f"for {MODEL} .* with @cf/other"),
    (lambda store: store.resolve("acc", "mine", MODEL), FinetuneNotReadyError, f"lacks {CONFIG} and {WEIGHTS}"),
    (create, FinetuneError, "already exists"),
    (lambda store: create(store, "cf-public-x"), FinetuneError, "reserved"),
    (lambda store: store.list_public(1, 0, "secret"), BadInputError, "orderBy is 'secret'"),
]


@pytest.mark.parametrize(("act", "error", "text"), REFUSALS)
def test_refusals_name_the_finetune_or_file(
    store: FinetuneStore, act: Callable[[FinetuneStore], object], error: type[Exception], text: str
) -> None:
    create(store)
    with pytest.raises(error, match=text):
        act(store)


def test_public_finetunes_of_other_accounts_are_found_by_id_and_cannot_be_changed(store: FinetuneStore) -> None:
    theirs = create(store, account="other", public=True)
    assert store.find("acc", theirs.id).name == "mine"
    with pytest.raises(FinetuneNotFoundError):
        store.find("acc", "mine")
    with pytest.raises(FinetuneError, match="another account"):
        store.find_own("acc", theirs.id)


def test_a_full_account_does_not_fill_another(store: FinetuneStore) -> None:
    for number in range(3):
        create(store, f"n{number}")
    with pytest.raises(FinetuneError, match="3 finetunes"):
        create(store, "one-more")
    assert create(store, account="other").account == "other"


def test_a_finetune_checked_by_another_server_is_reported_as_being_checked(
    data: Path, database_url: str | None, store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    made = add(store, adapter_folder / CONFIG, base_config)
    other_server = FinetuneRepository(data / "finetunes.db", url=database_url)
    other_server.begin_check(made)
    other_server.close()
    with pytest.raises(FinetuneNotReadyError, match="being checked"):
        store.resolve("acc", "mine", MODEL)
    found = store.find("acc", "mine")
    assert found.candidate is not None
    assert (found.state, found.candidate.check) == (FinetuneState.CHECKING, None)  # the other one knows the step
