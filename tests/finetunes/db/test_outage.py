"""The database goes away between and during requests, and comes back: nothing half made, and no restart needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from intaglio.errors import DatabaseError, EngineDeadError
from intaglio.finetunes import FinetuneState, FinetuneStore
from intaglio.finetunes.db.repository import FinetuneRepository
from intaglio.model.config import ModelConfig
from intaglio.request import VerifiedAdapter
from tests.finetunes.conftest import (
    CONFIG,
    MODEL,
    WEIGHTS,
    add,
    add_both,
    create,
    digest_in,
    move_database,
    stored_files,
    verifies,
)
from tests.helpers.postgresql import PostgresqlServer


class Outage:
    """Takes the database away and brings it back."""

    def __init__(self, away: Callable[[], None], back: Callable[[], None]) -> None:
        self._away = away
        self._back = back
        self.is_away = False

    def begin(self) -> None:
        self._away()
        self.is_away = True

    def end(self) -> None:
        if self.is_away:
            self._back()
            self.is_away = False


@pytest.fixture
def outage(data: Path, database_url: str | None, request: pytest.FixtureRequest) -> Iterator[Outage]:
    """PostgreSQL is stopped and started; the files of SQLite are moved away and back."""
    if database_url is not None:
        server: PostgresqlServer = request.getfixturevalue("postgresql_server")
        outage = Outage(server.stop, server.start)
    else:
        outage = Outage(
            lambda: move_database(data, "finetunes.db", "aside"), lambda: move_database(data, "aside", "finetunes.db")
        )
    yield outage
    outage.end()


def test_every_operation_raises_while_the_database_is_away_and_works_when_it_is_back(
    data: Path,
    store: FinetuneStore,
    outage: Outage,
    adapter_folder: Path,
    new_folder: Path,
    base_config: ModelConfig,
) -> None:
    create(store)
    ready = add_both(store, adapter_folder, base_config)
    files = stored_files(data)
    acts: list[Callable[[], object]] = [
        lambda: store.resolve("acc", "mine", MODEL),
        lambda: store.find("acc", "mine"),
        lambda: store.list_account("acc"),
        lambda: store.list_public(10, 0),
        lambda: create(store, "two"),
        lambda: add(store, new_folder / CONFIG, base_config),
        lambda: store.open_file("acc", "mine", WEIGHTS),
        lambda: store.roll_back("acc", "mine"),
        lambda: store.delete("acc", "mine"),
        store.collect_garbage,
    ]
    outage.begin()
    for act in acts:
        with pytest.raises(DatabaseError, match="database of finetunes does not respond"):
            act()
    assert stored_files(data) == files
    outage.end()
    assert store.find("acc", "mine") == ready
    assert store.resolve("acc", "mine", MODEL).digest == ready.digest
    assert add_both(store, new_folder, base_config).next_number == 3
    store.delete("acc", "mine")
    assert stored_files(data) == []


def test_a_database_that_goes_away_while_an_upload_is_verified_leaves_it_as_it_was(
    data: Path, store: FinetuneStore, outage: Outage, adapter_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    half = add(store, adapter_folder / CONFIG, base_config)
    files = stored_files(data)

    def away(folder: str) -> VerifiedAdapter:
        outage.begin()
        return verifies(base_config)(folder)

    with pytest.raises(DatabaseError):
        add(store, adapter_folder / WEIGHTS, base_config, verify=away)
    outage.end()
    assert store.find("acc", "mine").state is FinetuneState.AWAITING_FILES  # and not checking for ever
    assert store.find("acc", "mine").files == half.files
    assert stored_files(data) == files
    assert add(store, adapter_folder / WEIGHTS, base_config).state is FinetuneState.READY


def test_a_commit_whose_acknowledgement_is_lost_is_complete(
    data: Path,
    store: FinetuneStore,
    outage: Outage,
    adapter_folder: Path,
    base_config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    promote = FinetuneRepository.promote

    def promote_and_lose(repository: FinetuneRepository, *arguments: object) -> None:
        promote(repository, *arguments)  # type: ignore[arg-type]
        outage.begin()
        raise DatabaseError("the connection was lost before the answer")

    monkeypatch.setattr(FinetuneRepository, "promote", promote_and_lose)
    with pytest.raises(DatabaseError):
        add(store, adapter_folder / WEIGHTS, base_config)
    outage.end()
    found = store.find("acc", "mine")
    assert found.state is FinetuneState.READY
    ref = store.resolve("acc", "mine", MODEL)
    assert digest_in(ref.folder, base_config) == ref.digest
    assert len(stored_files(data)) == 4


def test_an_engine_that_cannot_answer_keeps_nothing(
    data: Path, store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig
) -> None:
    def dead(_folder: str) -> VerifiedAdapter:
        raise EngineDeadError("the engine process ended")

    create(store)
    half = add(store, adapter_folder / CONFIG, base_config)
    files = stored_files(data)
    with pytest.raises(EngineDeadError):
        add(store, adapter_folder / WEIGHTS, base_config, verify=dead)
    assert store.find("acc", "mine") == half
    assert stored_files(data) == files
