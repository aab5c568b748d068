"""Uploads, replacements and deletes in any order: the files there are exactly those that rows point to."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from intaglio.errors import AdapterError, FinetuneError, FinetuneNotFoundError
from intaglio.finetunes import FinetuneStore
from intaglio.finetunes.db.repository import FinetuneRepository
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.model.config import ModelConfig
from tests.finetunes.conftest import CONFIG, MODEL, WEIGHTS, add, create, digest_in

NAMES = st.sampled_from(["one", "two"])
FILES = st.sampled_from([CONFIG, WEIGHTS])


@pytest.mark.hypothesis  # which a state machine that a test runs does not get by itself
@pytest.mark.parametrize("num_examples", [6, pytest.param(40, marks=pytest.mark.slow)], ids=["few", "many"])
def test_rows_and_files_agree_after_any_operations_in_any_order(
    adapter_folder: Path, new_folder: Path, base_config: ModelConfig, tmp_path: Path, num_examples: int
) -> None:
    bad_folder = tmp_path / "bad"
    bad_folder.mkdir()
    for name in (CONFIG, WEIGHTS):
        (bad_folder / name).write_bytes((adapter_folder / name).read_bytes()[:-2])
    folders = st.sampled_from([adapter_folder, new_folder, bad_folder])

    class Finetunes(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.data = Path(tempfile.mkdtemp(dir=tmp_path))
            self.store = FinetuneStore(self.data, AdapterLimits(), 3)
            self.rows = FinetuneRepository(self.data / "finetunes.db")

        @rule(name=NAMES)
        def create(self, name: str) -> None:
            exists = name in [one.name for one in self.store.list_account("acc")]
            if exists:
                with pytest.raises(FinetuneError, match="already exists"):
                    create(self.store, name)
            else:
                assert create(self.store, name).next_number == 1

        @rule(name=NAMES, folder=folders, file=FILES, keep=st.booleans())
        def upload(self, name: str, folder: Path, file: str, keep: bool) -> None:
            before = {one.name: one for one in self.store.list_account("acc")}
            try:
                after = add(self.store, folder / file, base_config, name, keep_other_file=keep)
            except FinetuneNotFoundError:
                assert name not in before
            except (AdapterError, FinetuneError):
                assert self.store.find("acc", name).current == before[name].current
            else:
                assert after.next_number - before[name].next_number in (0, 1)

        @rule(name=NAMES)
        def delete(self, name: str) -> None:
            try:
                self.store.delete("acc", name)
            except FinetuneNotFoundError:
                assert name not in [one.name for one in self.store.list_account("acc")]
            with pytest.raises(FinetuneNotFoundError):
                self.store.resolve("acc", name, MODEL)

        @rule(name=NAMES)
        def roll_back(self, name: str) -> None:
            before = {one.name: one for one in self.store.list_account("acc")}
            try:
                after = self.store.roll_back("acc", name)
            except FinetuneNotFoundError:
                assert name not in before
            except FinetuneError:
                assert before[name].earlier == ()
            else:
                assert (after.digest, after.earlier[0]) == (before[name].earlier[0].digest, before[name].current)

        @rule()
        def open_again(self) -> None:
            before = self.store.list_account("acc")
            self.store.close()
            self.store = FinetuneStore(self.data, AdapterLimits(), 3)
            assert self.store.list_account("acc") == before

        @invariant()
        def files_are_those_of_the_rows(self) -> None:
            expected = [self.rows.files_of(one.id) for one in self.store.list_account("acc")]
            assert {path.name for path in self.data.glob("blobs/*/*")} == set().union(*(blobs for blobs, _ in expected))
            assert {path.name for path in self.data.glob("adapters/*")} == set().union(
                *(names for _, names in expected)
            )
            assert list(self.data.glob("incoming/*")) == []

        @invariant()
        def the_current_version_is_what_its_folder_has(self) -> None:
            for one in self.store.list_account("acc"):
                if one.current is not None:
                    assert digest_in(one.current.folder, base_config) == one.digest

        def teardown(self) -> None:
            self.rows.close()
            self.store.close()
            shutil.rmtree(self.data)

    run_state_machine_as_test(Finetunes, settings=settings(max_examples=num_examples, stateful_step_count=20))
