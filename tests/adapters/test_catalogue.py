from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from intaglio.adapters.catalogue import Catalogue
from intaglio.adapters.records import Finetune, Generation, StoredFile
from intaglio.errors import FinetuneError, FinetuneNotFoundError
from tests.adapters.conftest import CONFIG, WEIGHTS

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def create(catalogue: Catalogue, name: str, limit: int = 100) -> Finetune:
    return catalogue.create(account="acc", name=name, model="m", description="", public=False, max_finetunes=limit)


def test_threads_that_race_for_the_last_place_get_one(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "finetunes.db")
    barrier = threading.Barrier(5)
    outcomes: list[str] = []

    def race(number: int) -> None:
        barrier.wait()
        try:
            outcomes.append(create(catalogue, f"n{number}", limit=1).name)
        except FinetuneError:
            outcomes.append("refused")

    threads = [threading.Thread(target=race, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes).count("refused") == 4
    assert len(catalogue.list_account("acc")) == 1
    catalogue.close()


def stored(sha256: str) -> StoredFile:
    return StoredFile(sha256, 3, NOW)


def test_a_candidate_has_the_last_file_put_there(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "finetunes.db")
    create(catalogue, "mine")
    for sha256 in ("aa", "bb"):
        catalogue.put_candidate(catalogue.find("acc", "mine"), CONFIG, stored(sha256))
    assert catalogue.find("acc", "mine").files == {CONFIG: stored("bb")}
    assert catalogue.kept_blobs() == {"bb"}
    catalogue.close()


def test_of_earlier_generations_only_the_last_is_kept(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "finetunes.db")
    create(catalogue, "mine")
    for number in ("1", "2", "3"):
        files = {CONFIG: stored(f"c{number}"), WEIGHTS: stored(f"w{number}")}
        catalogue.promote(catalogue.find("acc", "mine"), files, f"digest{number}", f"folder{number}")
    found = catalogue.find("acc", "mine")
    assert found.current == Generation(3, "digest3", Path("folder3"), files)
    assert catalogue.kept_folders() == {"folder2", "folder3"}
    assert catalogue.kept_blobs() == {"c2", "w2", "c3", "w3"}
    catalogue.delete(found)
    assert catalogue.kept_folders() == catalogue.kept_blobs() == set()
    catalogue.close()


def test_what_was_changed_or_deleted_meanwhile_is_left_alone(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "finetunes.db")
    before = create(catalogue, "mine")
    catalogue.put_candidate(before, CONFIG, stored("aa"))
    pair = {CONFIG: stored("bb"), WEIGHTS: stored("cc")}
    late: list[Callable[[], None]] = [
        lambda: catalogue.put_candidate(before, CONFIG, stored("bb")),
        lambda: catalogue.promote(before, pair, "digest", "folder"),
        lambda: catalogue.drop_candidate(before),
    ]
    for act in late:
        with pytest.raises(FinetuneError, match="was changed while an upload was checked"):
            act()
    assert catalogue.find("acc", "mine").files == {CONFIG: stored("aa")}
    catalogue.delete(before)
    late += [lambda: catalogue.begin_check(before), lambda: catalogue.settle(before), lambda: catalogue.delete(before)]
    for act in late:
        with pytest.raises(FinetuneNotFoundError, match="Finetune mine not found"):
            act()
    assert catalogue.kept_blobs() == catalogue.kept_folders() == set()
    catalogue.close()


def test_what_one_connection_commits_another_process_reads(tmp_path: Path) -> None:
    first, second = Catalogue(tmp_path / "finetunes.db"), Catalogue(tmp_path / "finetunes.db")
    made = create(first, "mine")
    assert second.find("acc", made.id) == made
    first.close()
    second.close()
