"""SQLite files that are locked, removed or damaged: operations fail with the reason and work again afterwards."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from intaglio.errors import DatabaseError
from intaglio.finetunes import FinetuneState
from intaglio.model.config import ModelConfig
from intaglio.request import VerifiedAdapter
from tests.finetunes.conftest import CONFIG, WEIGHTS, OpenStore, add, create, move_database, verifies


@pytest.fixture
def database_url() -> None:
    """SQLite alone."""


def locked(data: Path) -> sqlite3.Connection:
    """A writer that holds its transaction open."""
    connection = sqlite3.connect(data / "finetunes.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_a_file_that_is_locked_for_long_can_be_read_and_is_written_when_it_is_free(
    data: Path, open_store: OpenStore, adapter_folder: Path, base_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intaglio.database.engines.LOCK_TIMEOUT_S", 0.05)
    store = open_store()
    create(store)
    half = add(store, adapter_folder / CONFIG, base_config)
    other = locked(data)
    with pytest.raises(DatabaseError):
        add(store, adapter_folder / WEIGHTS, base_config)
    with pytest.raises(DatabaseError):
        create(store, "two")
    assert store.find("acc", "mine") == half
    other.rollback()
    begun: list[sqlite3.Connection] = []

    def lock(folder: str) -> VerifiedAdapter:
        begun.append(locked(data))
        return verifies(base_config)(folder)

    with pytest.raises(DatabaseError):
        add(store, adapter_folder / WEIGHTS, base_config, verify=lock)
    assert store.find("acc", "mine").state is FinetuneState.CHECKING
    begun[0].rollback()
    assert store.find("acc", "mine").state is FinetuneState.AWAITING_FILES
    assert add(store, adapter_folder / WEIGHTS, base_config).state is FinetuneState.READY
    for connection in (other, *begun):
        connection.close()


def test_a_file_that_becomes_unreadable_is_used_again_when_it_can_be_read(data: Path, open_store: OpenStore) -> None:
    store = open_store()
    made = create(store)
    move_database(data, "finetunes.db", "aside")
    path = data / "finetunes.db"
    path.write_bytes(b"no database at all, but long enough to be asked for its header " * 20)
    with pytest.raises(DatabaseError):
        store.find("acc", "mine")
    path.unlink()
    move_database(data, "aside", "finetunes.db")
    assert store.find("acc", "mine") == made
