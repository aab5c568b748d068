"""Rolling a finetune back to an earlier version."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.errors import AdapterError, FinetuneError, FinetuneNotFoundError
from intaglio.finetunes import FinetuneState, FinetuneStore
from intaglio.lora.peft.reader import ReadStep
from intaglio.model.config import ModelConfig
from tests.finetunes.conftest import (
    CONFIG,
    MODEL,
    VERIFICATION,
    WEIGHTS,
    OpenStore,
    add,
    add_both,
    create,
    digest_in,
    stored_files,
)
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.paused_check import DEADLINE_S, PausedCheck, in_thread


def test_rolling_back_twice_restores_the_newer_version(
    data: Path, store: FinetuneStore, adapter_folder: Path, new_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    old = add_both(store, adapter_folder, base_config)
    new = add_both(store, new_folder, base_config)
    files = stored_files(data)
    for number, before in ((3, old), (4, new), (5, old)):
        now = store.roll_back("acc", "mine")
        assert now.current is not None
        assert (now.current.number, now.digest, now.current.verification) == (number, before.digest, VERIFICATION)
        assert now.files == before.files
        assert digest_in(store.resolve("acc", "mine", MODEL).folder, base_config) == before.digest
        assert stored_files(data) == files
        assert now.modified_at > new.modified_at


def test_a_rollback_to_a_version_that_is_not_kept_is_refused(
    store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    with pytest.raises(FinetuneError, match="'mine' has no version yet"):
        store.roll_back("acc", "mine")
    add_both(store, adapter_folder, base_config)
    with pytest.raises(FinetuneError, match=r"version is 1, .*: none"):
        store.roll_back("acc", "mine")
    with pytest.raises(FinetuneNotFoundError):
        store.roll_back("acc", "unknown")
    theirs = create(store, "theirs", account="other", public=True)
    with pytest.raises(FinetuneError, match="another account"):
        store.roll_back("acc", theirs.id)


def test_a_single_uploaded_file_still_waits_after_a_rollback(
    store: FinetuneStore, adapter_folder: Path, new_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    add_both(store, new_folder, base_config)
    old = add_both(store, adapter_folder, base_config)
    half = add(store, new_folder / CONFIG, base_config)
    now = store.roll_back("acc", "mine")
    assert (now.pending, half.pending) != (None, None)
    assert now.pending is not None
    assert half.pending is not None
    assert now.pending.files == half.pending.files
    assert store.roll_back("acc", "mine").digest == old.digest
    assert add(store, new_folder / WEIGHTS, base_config).digest == digest_in(new_folder, base_config)


def test_an_upload_checked_during_a_rollback_is_refused_with_the_reason(
    store: FinetuneStore,
    adapter_folder: Path,
    new_folder: Path,
    base_config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create(store)
    old = add_both(store, adapter_folder, base_config)
    add_both(store, new_folder, base_config)
    add(store, adapter_folder / CONFIG, base_config)
    held = PausedCheck(monkeypatch, ReadStep.SHAPES)
    upload = in_thread(lambda: add(store, adapter_folder / WEIGHTS, base_config))
    assert held.reached.wait(DEADLINE_S)
    store.roll_back("acc", "mine")
    held.resume.set()
    with pytest.raises(FinetuneError, match="was changed while an upload was checked"):
        upload.result(DEADLINE_S)
    assert store.find("acc", "mine").digest == old.digest


@pytest.mark.parametrize(("waiting", "left"), [(CONFIG, {CONFIG}), (WEIGHTS, set())])
def test_a_bad_file_checked_during_a_rollback_is_refused_with_the_file_it_was_to_replace(
    store: FinetuneStore,
    adapter_folder: Path,
    new_folder: Path,
    base_config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
    waiting: str,
    left: set[str],
) -> None:
    create(store)
    old = add_both(store, adapter_folder, base_config)
    add_both(store, new_folder, base_config)
    add(store, adapter_folder / waiting, base_config)

    def found_bad_after_a_rollback(*_: object) -> None:
        store.roll_back("acc", "mine")
        raise AdapterError("bad weights")

    for check in ("check_weights_file", "check_pair"):  # of the file alone, and with the other one
        monkeypatch.setattr(f"intaglio.finetunes.upload.{check}", found_bad_after_a_rollback)
    with pytest.raises(AdapterError, match="bad weights"):
        add(store, new_folder / WEIGHTS, base_config)
    now = store.find("acc", "mine")
    assert now.digest == old.digest
    assert now.pending is not None
    assert (now.pending.state, now.pending.files.keys()) == (FinetuneState.REFUSED, left)


def test_as_many_versions_are_kept_as_the_setting_says(
    data: Path, open_store: OpenStore, base_config: ModelConfig, tmp_path: Path
) -> None:
    store = open_store(kept_versions=3)
    create(store)
    digests = [
        add_both(
            store, write_peft_adapter(tmp_path / str(seed), base_config, layers=[1], seed=seed), base_config
        ).digest
        for seed in range(4)
    ]
    found = store.find("acc", "mine")
    assert [(one.number, one.digest) for one in found.earlier] == [(3, digests[2]), (2, digests[1])]
    assert store.roll_back("acc", "mine", to=2).digest == digests[1]
    with pytest.raises(FinetuneError, match=r"version 2 to .* is 5, .*: 4, 3"):
        store.roll_back("acc", "mine", to=2)
    one = open_store(kept_versions=1)
    add_both(one, tmp_path / "0", base_config)
    assert one.find("acc", "mine").earlier == ()
    assert len(stored_files(data)) == 4
