"""A data folder is used with its own database only: with another one every file would be removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.errors import DataFolderError
from intaglio.finetunes import FinetuneStore
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.model.config import ModelConfig
from tests.finetunes.conftest import OpenStore, add_both, create, move_database, stored_files
from tests.helpers.postgresql import PostgresqlServer


def open_at(data: Path, url: str | None = None) -> FinetuneStore:
    return FinetuneStore(data, AdapterLimits(), max_finetunes=3, database_url=url)


def test_files_of_a_database_that_was_lost_are_kept(data: Path, adapter_folder: Path, base_config: ModelConfig) -> None:
    store = open_at(data)
    create(store)
    add_both(store, adapter_folder, base_config)
    store.close()
    files = stored_files(data)
    move_database(data, "finetunes.db", "aside")
    with pytest.raises(DataFolderError, match="belong to another database than the one given"):
        open_at(data)
    assert stored_files(data) == files
    (data / "finetunes.db").unlink()
    move_database(data, "aside", "finetunes.db")
    again = open_at(data)
    assert again.find("acc", "mine").digest is not None
    again.close()


@pytest.mark.slow
def test_setting_the_database_url_for_the_first_time_removes_no_files(
    data: Path, adapter_folder: Path, base_config: ModelConfig, postgresql_url: str
) -> None:
    store = open_at(data)
    create(store)
    add_both(store, adapter_folder, base_config)
    store.close()
    files = stored_files(data)
    with pytest.raises(DataFolderError, match="belong to another database"):
        open_at(data, postgresql_url)
    assert stored_files(data) == files


def test_adapter_files_without_a_database_id_are_kept(
    data: Path, adapter_folder: Path, base_config: ModelConfig
) -> None:
    store = open_at(data)
    create(store)
    add_both(store, adapter_folder, base_config)
    store.close()
    files = stored_files(data)
    identity = (data / "database-id").read_bytes()
    (data / "database-id").unlink()
    with pytest.raises(DataFolderError, match=r"no file database-id"):
        open_at(data)
    assert stored_files(data) == files
    (data / "database-id").write_bytes(identity)
    open_at(data).close()


@pytest.mark.slow
def test_a_database_is_not_used_without_its_files(
    tmp_path: Path, adapter_folder: Path, base_config: ModelConfig, postgresql_server: PostgresqlServer
) -> None:
    url = postgresql_server.new_database()
    store = open_at(tmp_path / "one", url)
    create(store)
    add_both(store, adapter_folder, base_config)
    with pytest.raises(DataFolderError, match="has finetunes, and their files are not in"):
        open_at(tmp_path / "two", url)
    with pytest.raises(DataFolderError, match="belong to another database"):
        open_at(tmp_path / "one", postgresql_server.new_database())
    beside = open_at(tmp_path / "one", url)
    assert beside.find("acc", "mine").digest is not None
    beside.close()
    store.close()


def test_servers_may_share_a_folder_and_its_database(store: FinetuneStore, open_store: OpenStore) -> None:
    made = create(store)
    assert open_store().find("acc", "mine") == made
