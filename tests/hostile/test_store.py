"""Every case given to the store without HTTP: refused, nothing is stored, the finetune is unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from intaglio.errors import AdapterError
from intaglio.finetunes import FinetuneState, FinetuneStore
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.model.config import ModelConfig
from tests.finetunes.conftest import add, create
from tests.hostile.case import CONFIG, WEIGHTS, HostileCase
from tests.hostile.corpus import FAMILIES, first_of_each_family
from tests.hostile.data_folder import folder_contents
from tests.hostile.good_adapter import Files

OTHER = {CONFIG: WEIGHTS, WEIGHTS: CONFIG}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def store(folder: Path, base: ModelConfig, good: Files) -> Iterator[FinetuneStore]:
    """A store with two finetunes, each with one valid file. At the end the other file makes each of them ready."""
    store = FinetuneStore(folder / "data", AdapterLimits(), max_finetunes=9)
    for needed in (CONFIG, WEIGHTS):
        create(store, needed)
        put(store, folder, base, needed, OTHER[needed], good)
    yield store
    for needed in (CONFIG, WEIGHTS):
        assert put(store, folder, base, needed, needed, good) is FinetuneState.READY
    store.close()


def put(
    store: FinetuneStore, folder: Path, base: ModelConfig, name: str, file_name: str, files: Files
) -> FinetuneState:
    path = folder / file_name
    path.write_bytes(files.config if file_name == CONFIG else files.weights)
    return add(store, path, base, name).state


@contextmanager
def finetune_for(
    store: FinetuneStore, folder: Path, base: ModelConfig, good: Files, case: HostileCase
) -> Iterator[str]:
    """A finetune that has the case's other file: one of the two above if that file is the valid one, else a new one."""
    files, other = case.make(good), OTHER[case.bad]
    if (files.config == good.config) if other == CONFIG else (files.weights == good.weights):
        yield case.bad
        return
    create(store, "own")
    put(store, folder, base, "own", other, files)
    yield "own"
    store.delete("acc", "own")


@pytest.mark.parametrize("case", first_of_each_family(FAMILIES))
def test_a_hostile_file_is_refused_and_only_the_reason_is_kept(
    store: FinetuneStore, folder: Path, base: ModelConfig, good: Files, case: HostileCase
) -> None:
    with finetune_for(store, folder, base, good, case) as name:
        before, rows = store.find("acc", name), folder_contents(folder / "data")
        with pytest.raises(AdapterError, match=case.complaint) as refused:
            put(store, folder, base, name, case.bad, case.make(good))
        assert folder_contents(folder / "data") == rows
        now = store.find("acc", name)
        assert now.candidate is not None and before.candidate is not None
        assert (now.state, now.candidate.reason) == (FinetuneState.REFUSED, str(refused.value))
        assert now.candidate.files == before.candidate.files
        assert replace(now, candidate=None, modified_at=before.modified_at) == replace(before, candidate=None)
