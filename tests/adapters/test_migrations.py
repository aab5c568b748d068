"""Databases of earlier versions go on working; one of a later version is left alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from intaglio.adapters import AdapterStore, FinetuneState, migrations
from intaglio.adapters.catalogue import Catalogue
from intaglio.adapters.data_lock import DataLock
from intaglio.adapters.records import StoredFile
from intaglio.adapters.tables import SCHEMA_VERSION
from intaglio.errors import DataFolderError, FinetuneNotFoundError
from intaglio.lora.peft import AdapterLimits
from intaglio.model.config import ModelConfig
from tests.adapters.conftest import CONFIG, MODEL, WEIGHTS, add, add_both, create, digest_in, stored_files

# The tables as version 0.1.0 made them, before databases had a number.
OLD_TABLES = """
CREATE TABLE finetunes (
    id VARCHAR(36) NOT NULL, account VARCHAR(64) NOT NULL, name VARCHAR(128) NOT NULL, model VARCHAR(256) NOT NULL,
    description TEXT NOT NULL, public BOOLEAN NOT NULL, created_at DATETIME NOT NULL, modified_at DATETIME NOT NULL,
    state VARCHAR(16) NOT NULL, reason TEXT, digest VARCHAR(64), folder VARCHAR(64),
    PRIMARY KEY (id), UNIQUE (account, name));
CREATE TABLE finetune_files (
    finetune_id VARCHAR(36) NOT NULL, name VARCHAR(64) NOT NULL, sha256 VARCHAR(64) NOT NULL,
    size_bytes BIGINT NOT NULL, PRIMARY KEY (finetune_id, name),
    FOREIGN KEY(finetune_id) REFERENCES finetunes (id) ON DELETE CASCADE);
"""
MADE, MODIFIED = "2026-01-01 10:00:00.000001", "2026-01-02 11:00:00.500000"


def as_old_version(path: Path) -> None:
    """Write the rows of a database of this version, all of generation 1, into the tables of the old one."""
    with closing(sqlite3.connect(path)) as new:
        rows = new.execute("SELECT * FROM finetunes").fetchall()
        columns = [name for _, name, *_ in new.execute("PRAGMA table_info(finetunes)")]
        generations = {
            row[0]: row[1:] for row in new.execute("SELECT finetune_id, digest, folder FROM finetune_generations")
        }
        files = new.execute("SELECT finetune_id, name, sha256, size_bytes FROM finetune_files").fetchall()
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as old:
        old.executescript("PRAGMA journal_mode=WAL;" + OLD_TABLES)
        for row in rows:
            one = dict(zip(columns, row, strict=True))
            one.pop("generation")
            one["digest"], one["folder"] = generations.get(one["id"], (None, None))
            marks = ", ".join("?" * len(one))
            old.execute(f"INSERT INTO finetunes ({', '.join(one)}) VALUES ({marks})", list(one.values()))
        old.executemany("INSERT INTO finetune_files VALUES (?, ?, ?, ?)", files)
        old.commit()


def tables_of(path: Path) -> dict[str, object]:
    """Columns, keys and references of every table, as SQLite tells them."""
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        pragmas = ("table_info", "foreign_key_list", "index_list")
        return {
            name: [database.execute(f"PRAGMA {pragma}({name})").fetchall() for pragma in pragmas]
            for name in sorted(names)
        }


def test_a_data_folder_of_the_old_version_goes_on_working(
    data: Path, store: AdapterStore, adapter_folder: Path, new_folder: Path, base_config: ModelConfig
) -> None:
    made = [create(store, "ready", public=True), create(store, "half"), create(store, "new", account="other")]
    ready = add_both(store, adapter_folder, base_config, "ready")
    half = add(store, adapter_folder / CONFIG, base_config, "half")
    files = stored_files(data)
    store.close()
    as_old_version(data / "finetunes.db")

    again = AdapterStore(data, AdapterLimits(), max_finetunes=3)
    assert stored_files(data) == files
    found = again.find("acc", "ready")
    assert (found.id, found.state, found.next_number, found.digest) == (ready.id, FinetuneState.READY, 2, ready.digest)
    assert found.created_at == ready.created_at
    sizes = {name: (file.sha256, file.size_bytes) for name, file in ready.files.items()}
    assert {name: (file.sha256, file.size_bytes) for name, file in found.files.items()} == sizes
    assert all(file.uploaded_at == ready.modified_at for file in found.files.values())
    assert again.find("acc", "half").files.keys() == half.files.keys() == {CONFIG}
    assert again.find("other", "new").state is FinetuneState.AWAITING_FILES
    assert [one.id for one in again.list_public(10, 0)] == [made[0].id]
    assert digest_in(again.resolve("acc", "ready", MODEL).folder, base_config) == ready.digest

    assert add(again, adapter_folder / WEIGHTS, base_config, "half").state is FinetuneState.READY
    assert add_both(again, new_folder, base_config, "ready").next_number == 3
    again.delete("acc", "ready")
    with pytest.raises(FinetuneNotFoundError):
        again.find("acc", "ready")
    again.close()


def test_the_tables_are_the_same_made_new_or_changed(tmp_path: Path) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    Catalogue(new).close()
    with closing(sqlite3.connect(old)) as database:
        database.executescript(OLD_TABLES)
    for _ in range(2):  # the second time there is nothing to do
        Catalogue(old).close()
        assert tables_of(old) == tables_of(new)
    with closing(sqlite3.connect(old)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_change_that_fails_leaves_the_old_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(OLD_TABLES)
        row = ("id", "acc", "mine", "m", "", 0, MADE, MODIFIED, "ready", None, "d", "f")
        database.execute(f"INSERT INTO finetunes VALUES ({', '.join('?' * 12)})", row)
        database.execute("INSERT INTO finetune_files VALUES ('id', 'adapter_config.json', 'aa', 3)")
        database.commit()
    before = tables_of(path)
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "STEPS", ((*migrations.STEPS[0], "SELECT no_such_column"),))
        with pytest.raises(DataFolderError, match=r"old\.db cannot be used .* no such column"):
            Catalogue(path)
    assert tables_of(path) == before
    catalogue = Catalogue(path)
    found = catalogue.find("acc", "mine")
    assert found.files == {"adapter_config.json": StoredFile("aa", 3, found.modified_at)}
    catalogue.close()


def test_tables_that_an_earlier_server_is_using_are_not_changed_under_it(data: Path, store: AdapterStore) -> None:
    create(store)
    store.close()
    path = data / "finetunes.db"
    as_old_version(path)
    before = tables_of(path)
    earlier = DataLock(data)
    earlier.share()
    with pytest.raises(DataFolderError, match=r"finetunes\.db has to be changed .* a server of an earlier one uses it"):
        AdapterStore(data, AdapterLimits(), max_finetunes=3)
    assert tables_of(path) == before
    earlier.close()
    again = AdapterStore(data, AdapterLimits(), max_finetunes=3)
    assert again.find("acc", "mine").state is FinetuneState.AWAITING_FILES
    again.close()


def test_a_database_of_a_later_version_is_refused_and_untouched(data: Path, store: AdapterStore) -> None:
    create(store)
    store.close()
    path = data / "finetunes.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    before = tables_of(path)
    with pytest.raises(DataFolderError, match="written by a later Intaglio: its tables have version 99, and this one"):
        AdapterStore(data, AdapterLimits(), max_finetunes=3)
    assert tables_of(path) == before


def test_a_file_that_is_no_database_is_refused(data: Path) -> None:
    data.mkdir()
    (data / "finetunes.db").write_bytes(b"no database at all, but long enough to be asked for its header " * 20)
    with pytest.raises(DataFolderError, match=r"finetunes\.db cannot be used as the database of finetunes"):
        AdapterStore(data, AdapterLimits(), max_finetunes=3)
