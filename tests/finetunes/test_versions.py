"""Replacing the files of a finetune that is served."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from intaglio.errors import AdapterError, FinetuneError
from intaglio.finetunes import FinetuneState, FinetuneStore
from intaglio.model.config import ModelConfig
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
)


def test_files_of_two_trainings_are_never_served_together(
    store: FinetuneStore, adapter_folder: Path, new_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    old = add_both(store, adapter_folder, base_config)
    for name in (CONFIG, WEIGHTS):
        half = add(store, new_folder / name, base_config)
        assert half.state is FinetuneState.READY
        if name == CONFIG:
            assert half.digest == old.digest
            assert half.pending is not None
            assert (half.pending.state, half.pending.missing_files) == (FinetuneState.AWAITING_FILES, (WEIGHTS,))
    assert store.resolve("acc", "mine", MODEL).digest == digest_in(new_folder, base_config)


def test_an_abandoned_file_is_not_paired_with_a_later_upload(
    store: FinetuneStore, clock: SetClock, adapter_folder: Path, new_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    old = add_both(store, adapter_folder, base_config)
    add(store, new_folder / CONFIG, base_config)
    clock.now += timedelta(minutes=61)
    late = add(store, new_folder / WEIGHTS, base_config)
    assert late.pending is not None
    assert (late.digest, late.pending.files.keys()) == (old.digest, {WEIGHTS})
    clock.now += timedelta(minutes=59)
    assert add(store, new_folder / CONFIG, base_config).digest == digest_in(new_folder, base_config)


def test_before_the_first_version_a_single_file_never_expires(
    store: FinetuneStore, clock: SetClock, adapter_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    clock.now += timedelta(days=400)
    assert add(store, adapter_folder / WEIGHTS, base_config).state is FinetuneState.READY


def test_the_last_file_again_is_a_repeat_for_an_hour_and_then_a_new_upload(
    store: FinetuneStore, clock: SetClock, adapter_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    ready = add_both(store, adapter_folder, base_config)
    assert add(store, adapter_folder / WEIGHTS, base_config) == ready
    first = add(store, adapter_folder / CONFIG, base_config)  # a replacement may well begin with the same config
    assert first.pending is not None
    again = add(store, adapter_folder / WEIGHTS, base_config)
    assert (again.current, again.candidate) == (ready.current, None)
    clock.now += timedelta(minutes=61)
    assert add(store, adapter_folder / WEIGHTS, base_config).pending is not None


def test_a_refused_file_also_removes_the_file_that_it_was_to_replace(
    data: Path, store: FinetuneStore, adapter_folder: Path, new_folder: Path, base_config: ModelConfig, tmp_path: Path
) -> None:
    create(store)
    old = add_both(store, adapter_folder, base_config)
    before = stored_files(data)
    add(store, new_folder / CONFIG, base_config)
    bad = tmp_path / CONFIG
    bad.write_text("{}")
    with pytest.raises(AdapterError):
        add(store, bad, base_config)
    found = store.find("acc", "mine")
    assert found.pending is not None
    assert (found.pending.state, dict(found.pending.files)) == (FinetuneState.REFUSED, {})
    assert stored_files(data) == before
    # The weights that the same script uploads next wait for their config and do not meet the one before it.
    after = add(store, new_folder / WEIGHTS, base_config)
    assert after.digest == old.digest


def test_the_other_file_is_kept_when_asked(
    store: FinetuneStore, adapter_folder: Path, new_folder: Path, base_config: ModelConfig, tmp_path: Path
) -> None:
    create(store)
    with pytest.raises(FinetuneError, match="not ready"):
        add(store, adapter_folder / CONFIG, base_config, keep_other_file=True)
    add_both(store, adapter_folder, base_config)
    mixed = add(store, new_folder / CONFIG, base_config, keep_other_file=True)
    for folder, name in ((new_folder, CONFIG), (adapter_folder, WEIGHTS)):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert (mixed.state, mixed.next_number, mixed.candidate) == (FinetuneState.READY, 3, None)
    assert mixed.digest == digest_in(tmp_path, base_config)


def test_running_requests_can_read_the_version_before_and_older_files_go(
    data: Path, store: FinetuneStore, adapter_folder: Path, new_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    add_both(store, adapter_folder, base_config)
    first = store.resolve("acc", "mine", MODEL)
    add(store, new_folder / CONFIG, base_config)
    add(store, new_folder / WEIGHTS, base_config)
    second = store.resolve("acc", "mine", MODEL)
    assert second.digest != first.digest
    assert digest_in(first.folder, base_config) == first.digest
    kept = len(stored_files(data))
    add(store, adapter_folder / CONFIG, base_config)
    add(store, new_folder / WEIGHTS, base_config)  # a third one, of the first's config and the second's weights
    assert digest_in(second.folder, base_config) == second.digest
    assert not Path(first.folder).exists()
    assert len(stored_files(data)) == kept - 1  # the first one's weights; its config is in the third too
    with pytest.raises(AdapterError, match="does not exist, or was removed"):
        digest_in(first.folder, base_config)


def test_a_store_opened_again_keeps_candidate_and_versions(
    data: Path,
    store: FinetuneStore,
    open_store: OpenStore,
    adapter_folder: Path,
    new_folder: Path,
    base_config: ModelConfig,
) -> None:
    create(store)
    add_both(store, adapter_folder, base_config)
    first = store.resolve("acc", "mine", MODEL)
    add_both(store, new_folder, base_config)
    half = add(store, adapter_folder / CONFIG, base_config)
    files = stored_files(data)
    store.close()
    again = open_store()
    assert again.find("acc", "mine") == half
    assert stored_files(data) == files
    assert digest_in(first.folder, base_config) == first.digest
