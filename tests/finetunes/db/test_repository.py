from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from intaglio.errors import DatabaseError, FinetuneError, FinetuneNotFoundError
from intaglio.finetunes.db.repository import FinetuneRepository
from intaglio.finetunes.records import Finetune, FinetuneVersion, StoredFile
from tests.finetunes.conftest import CONFIG, VERIFICATION, WEIGHTS
from tests.helpers.paused_check import DEADLINE_S

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def create(repository: FinetuneRepository, name: str, limit: int = 100) -> Finetune:
    return repository.create(account="acc", name=name, model="m", description="", public=False, max_finetunes=limit)


def test_of_threads_that_race_for_the_last_free_finetune_one_gets_it(tmp_path: Path, database_url: str | None) -> None:
    repository = FinetuneRepository(tmp_path / "finetunes.db", url=database_url)
    barrier = threading.Barrier(5)

    def race(number: int) -> str:
        barrier.wait(DEADLINE_S)
        for _ in range(9):
            # A writer waits 10 s for the one before, and a disk may stall longer: then it asks again, as clients do.
            with suppress(DatabaseError):
                try:
                    return create(repository, f"n{number}", limit=1).name
                except FinetuneError:
                    return "refused"
        return "gave up"

    with ThreadPoolExecutor(5) as pool:
        outcomes = list(pool.map(race, range(5)))
    assert outcomes.count("refused") == 4
    assert len(repository.list_account("acc")) == 1
    repository.close()


def test_a_name_with_a_nul_is_not_found(tmp_path: Path, database_url: str | None) -> None:
    repository = FinetuneRepository(tmp_path / "finetunes.db", url=database_url)
    create(repository, "mine")
    assert repository.find_servable("acc", "mine\0") is None
    with pytest.raises(FinetuneNotFoundError):
        repository.find("acc", "mine\0")
    repository.close()


def stored(sha256: str) -> StoredFile:
    return StoredFile(sha256, 3, NOW)


def test_a_candidate_has_the_last_uploaded_file(tmp_path: Path, database_url: str | None) -> None:
    repository = FinetuneRepository(tmp_path / "finetunes.db", url=database_url)
    create(repository, "mine")
    for sha256 in ("aa", "bb"):
        repository.put_candidate(repository.find("acc", "mine"), CONFIG, stored(sha256))
    assert repository.find("acc", "mine").files == {CONFIG: stored("bb")}
    assert repository.find_unused(["aa", "bb"], []) == ({"aa"}, set())
    repository.close()


def test_of_earlier_versions_only_the_last_is_kept(tmp_path: Path, database_url: str | None) -> None:
    repository = FinetuneRepository(tmp_path / "finetunes.db", url=database_url)
    create(repository, "mine")
    for number in ("1", "2", "3"):
        files = {CONFIG: stored(f"c{number}"), WEIGHTS: stored(f"w{number}")}
        repository.promote(repository.find("acc", "mine"), files, f"digest{number}", f"folder{number}", VERIFICATION)
    found = repository.find("acc", "mine")
    assert found.current == FinetuneVersion(3, "digest3", Path("folder3"), files, VERIFICATION)
    assert [one.number for one in found.earlier] == [2]
    blobs, folders = ({f"{kind}{number}" for kind in kinds for number in "123"} for kinds in ("cw", ("folder",)))
    assert repository.find_unused(blobs, folders) == ({"c1", "w1"}, {"folder1"})
    repository.delete(found)
    assert repository.find_unused(blobs, folders) == (blobs, folders)
    repository.close()


def test_rows_changed_or_deleted_meanwhile_are_not_overwritten(tmp_path: Path, database_url: str | None) -> None:
    repository = FinetuneRepository(tmp_path / "finetunes.db", url=database_url)
    before = create(repository, "mine")
    repository.put_candidate(before, CONFIG, stored("aa"))
    pair = {CONFIG: stored("bb"), WEIGHTS: stored("cc")}
    late: list[Callable[[], None]] = [
        lambda: repository.put_candidate(before, CONFIG, stored("bb")),
        lambda: repository.promote(before, pair, "digest", "folder", VERIFICATION),
        lambda: repository.confirm_current(before, VERIFICATION),
    ]
    for act in late:
        with pytest.raises(FinetuneError, match="was changed while an upload was checked"):
            act()
    assert repository.find("acc", "mine").files == {CONFIG: stored("aa")}
    repository.delete(before)
    late += [
        lambda: repository.begin_check(before),
        lambda: repository.end_check(before),
        lambda: repository.delete(before),
    ]
    for act in late:
        with pytest.raises(FinetuneNotFoundError, match="Finetune mine not found"):
            act()
    assert repository.find_unused(["aa", "bb"], ["folder"]) == ({"aa", "bb"}, {"folder"})
    repository.close()


def test_what_one_connection_commits_another_process_reads(tmp_path: Path, database_url: str | None) -> None:
    first, second = (FinetuneRepository(tmp_path / "finetunes.db", url=database_url) for _ in range(2))
    made = create(first, "mine")
    assert second.find("acc", made.id) == made
    first.close()
    second.close()
