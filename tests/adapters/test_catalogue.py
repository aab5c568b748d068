from __future__ import annotations

import threading
from pathlib import Path

from intaglio.adapters.catalogue import Catalogue
from intaglio.adapters.records import Finetune, StoredFile
from intaglio.errors import FinetuneError


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


def test_a_second_file_of_one_name_replaces_the_first(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "finetunes.db")
    made = create(catalogue, "mine")
    for sha256 in ("aa", "bb"):
        catalogue.add_file(made.id, "adapter_config.json", StoredFile(sha256, 3))
    assert catalogue.find("acc", "mine").files == {"adapter_config.json": StoredFile("bb", 3)}
    assert catalogue.kept_blobs() == {"bb"}
    catalogue.close()


def test_what_one_connection_commits_another_process_reads(tmp_path: Path) -> None:
    first, second = Catalogue(tmp_path / "finetunes.db"), Catalogue(tmp_path / "finetunes.db")
    made = create(first, "mine")
    assert second.find("acc", made.id) == made
    first.close()
    second.close()
