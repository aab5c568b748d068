"""Databases of earlier versions go on working; one of a later version is left alone."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from intaglio.errors import DataFolderError, FinetuneNotFoundError
from intaglio.finetunes import AdapterStore, FinetuneState
from intaglio.finetunes.db.repository import FinetuneRepository
from intaglio.finetunes.db.tables import SCHEMA
from intaglio.finetunes.records import StoredFile
from intaglio.finetunes.storage.data_lock import DataLock
from intaglio.model.config import ModelConfig
from tests.finetunes.conftest import CONFIG, MODEL, WEIGHTS, OpenStore, add, add_both, create, digest_in, stored_files

# The tables as they were before databases had a number.
UNNUMBERED_TABLES = """
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
# The tables as they were with the number 1, before alembic looked after them.
NUMBERED_TABLES = """
CREATE TABLE finetunes (
    id VARCHAR(36) NOT NULL, account VARCHAR(64) NOT NULL, name VARCHAR(128) NOT NULL, model VARCHAR(256) NOT NULL,
    description TEXT NOT NULL, public BOOLEAN NOT NULL, created_at DATETIME NOT NULL, modified_at DATETIME NOT NULL,
    version INTEGER NOT NULL, state VARCHAR(16) NOT NULL, reason TEXT, PRIMARY KEY (id), UNIQUE (account, name));
CREATE TABLE finetune_versions (
    finetune_id VARCHAR(36) NOT NULL, number INTEGER NOT NULL, digest VARCHAR(64) NOT NULL, folder VARCHAR(64) NOT NULL,
    ready_at DATETIME NOT NULL, PRIMARY KEY (finetune_id, number),
    FOREIGN KEY(finetune_id) REFERENCES finetunes (id) ON DELETE CASCADE);
CREATE TABLE finetune_files (
    finetune_id VARCHAR(36) NOT NULL, version INTEGER NOT NULL, name VARCHAR(64) NOT NULL,
    sha256 VARCHAR(64) NOT NULL, size_bytes BIGINT NOT NULL, uploaded_at DATETIME NOT NULL,
    PRIMARY KEY (finetune_id, version, name),
    FOREIGN KEY(finetune_id) REFERENCES finetunes (id) ON DELETE CASCADE);
PRAGMA user_version = 1;
"""
MADE, MODIFIED = "2026-01-01 10:00:00.000001", "2026-01-02 11:00:00.500000"


def as_unnumbered(path: Path) -> None:
    """Write the rows of a database of this version, all of version 1, into the tables of the first one."""
    rows = rows_of(path)
    versions = {row["finetune_id"]: row for row in rows["finetune_versions"]}
    files = [
        {name: row[name] for name in ("finetune_id", "name", "sha256", "size_bytes")} for row in rows["finetune_files"]
    ]
    for row in rows["finetunes"]:
        row.pop("version")
        current = versions.get(row["id"], {})
        row["digest"], row["folder"] = current.get("digest"), current.get("folder")
    write_old(path, UNNUMBERED_TABLES, {"finetunes": rows["finetunes"], "finetune_files": files})


def as_numbered(path: Path) -> None:
    """Write the rows of a database of this version into the tables with the number 1."""
    rows = rows_of(path)
    for row in rows["finetune_versions"]:
        row.pop("verification")
    rows.pop("finetune_store")
    rows.pop("finetunes_version")
    write_old(path, NUMBERED_TABLES, rows)


def rows_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: [dict(row) for row in database.execute(f"SELECT * FROM {name}")] for name in names}


def write_old(path: Path, tables: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    """A database with these tables and rows, in the place of the one that is there. The folder knows no id."""
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    (path.parent / "database-id").unlink()
    with closing(sqlite3.connect(path)) as old:
        old.executescript("PRAGMA journal_mode=WAL;" + tables)
        for table, its_rows in sorted(rows.items(), reverse=True):  # finetunes before what refers to them
            for row in its_rows:
                marks = ", ".join("?" * len(row))
                old.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
        old.commit()


def tables_of(path: Path) -> dict[str, object]:
    """Columns, keys, references and indexes of every table, as SQLite tells them."""
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        pragmas = ("table_info", "foreign_key_list", "index_list")
        told = {
            name: [database.execute(f"PRAGMA {pragma}({name})").fetchall() for pragma in pragmas]
            for name in sorted(names)
        }
        for name in names:
            told[name][2] = sorted(row[1:] for row in told[name][2])  # whichever was made first
        return told


OLD_VERSIONS = pytest.mark.parametrize("as_old_version", [as_unnumbered, as_numbered], ids=["unnumbered", "numbered"])


@pytest.fixture
def database_url() -> None:
    """Earlier versions had SQLite alone."""


@OLD_VERSIONS
def test_a_data_folder_of_an_old_version_goes_on_working(
    data: Path,
    store: AdapterStore,
    open_store: OpenStore,
    adapter_folder: Path,
    new_folder: Path,
    base_config: ModelConfig,
    as_old_version: Callable[[Path], None],
) -> None:
    made = [create(store, "ready", public=True), create(store, "half"), create(store, "new", account="other")]
    ready = add_both(store, adapter_folder, base_config, "ready")
    half = add(store, adapter_folder / CONFIG, base_config, "half")
    files = stored_files(data)
    store.close()
    as_old_version(data / "finetunes.db")

    again = open_store()
    assert stored_files(data) == files
    found = again.find("acc", "ready")
    assert (found.id, found.state, found.next_number, found.digest) == (ready.id, FinetuneState.READY, 2, ready.digest)
    assert found.created_at == ready.created_at
    assert found.current is not None
    assert found.current.verification is None
    sizes = {name: (file.sha256, file.size_bytes) for name, file in ready.files.items()}
    assert {name: (file.sha256, file.size_bytes) for name, file in found.files.items()} == sizes
    assert again.find("acc", "half").files.keys() == half.files.keys() == {CONFIG}
    assert again.find("other", "new").state is FinetuneState.AWAITING_FILES
    assert [one.id for one in again.list_public(10, 0)] == [made[0].id]
    assert digest_in(again.resolve("acc", "ready", MODEL).folder, base_config) == ready.digest

    assert add(again, adapter_folder / WEIGHTS, base_config, "half").state is FinetuneState.READY
    assert add_both(again, new_folder, base_config, "ready").next_number == 3
    assert again.rollback("acc", "ready").digest == ready.digest
    again.delete("acc", "ready")
    with pytest.raises(FinetuneNotFoundError):
        again.find("acc", "ready")


def test_files_of_the_first_version_are_as_old_as_their_finetune(data: Path) -> None:
    data.mkdir()
    path = data / "finetunes.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(UNNUMBERED_TABLES)
        row = ("id", "acc", "mine", "m", "", 0, MADE, MODIFIED, "ready", None, "d", "f")
        database.execute(f"INSERT INTO finetunes VALUES ({', '.join('?' * 12)})", row)
        database.execute("INSERT INTO finetune_files VALUES ('id', 'adapter_config.json', 'aa', 3)")
        database.commit()
    catalogue = FinetuneRepository(path)
    found = catalogue.find("acc", "mine")
    assert found.files == {"adapter_config.json": StoredFile("aa", 3, found.modified_at)}
    catalogue.close()


@pytest.mark.parametrize("tables", [UNNUMBERED_TABLES, NUMBERED_TABLES], ids=["unnumbered", "numbered"])
def test_the_tables_are_the_same_made_new_or_changed(tmp_path: Path, tables: str) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    FinetuneRepository(new).close()
    with closing(sqlite3.connect(old)) as database:
        database.executescript(tables)
    for _ in range(2):  # the second time there is nothing to do
        FinetuneRepository(old).close()
        assert tables_of(old) == tables_of(new)
    with closing(sqlite3.connect(old)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)  # earlier versions refuse more than 1
        assert database.execute("SELECT version_num FROM finetunes_version").fetchall() == [(SCHEMA.head,)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


@OLD_VERSIONS
def test_a_change_that_fails_or_dies_leaves_the_old_tables(
    data: Path, store: AdapterStore, open_store: OpenStore, as_old_version: Callable[[Path], None]
) -> None:
    create(store)
    store.close()
    path = data / "finetunes.db"
    as_old_version(path)
    before = tables_of(path)
    num_statements = count_until_done(path.with_name("copy.db"), path)
    assert num_statements > 5
    for number in range(num_statements):
        with dying_at(number), pytest.raises(ZeroDivisionError):
            FinetuneRepository(path)
        assert tables_of(path) == before
    assert open_store().find("acc", "mine").state is FinetuneState.AWAITING_FILES


@contextmanager
def dying_at(number: int) -> Iterator[None]:
    """Every statement after the first `number` fails in this block."""
    left = itertools.count(number, -1)

    def die(*_: object) -> None:
        if next(left) <= 0:
            raise ZeroDivisionError

    sa.event.listen(sa.Engine, "before_cursor_execute", die)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", die)


def count_until_done(copy: Path, original: Path) -> int:
    """Statements that bring a copy of the database up to date."""
    shutil.copy(original, copy)
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        FinetuneRepository(copy).close()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    return len(statements)


def test_servers_that_start_together_change_the_tables_once(data: Path, store: AdapterStore) -> None:
    create(store)
    store.close()
    path = data / "finetunes.db"
    as_numbered(path)
    together = threading.Barrier(4)

    def start() -> str:
        together.wait()
        catalogue = FinetuneRepository(path)
        try:
            return catalogue.find("acc", "mine").name
        finally:
            catalogue.close()

    with ThreadPoolExecutor(4) as pool:
        started = [pool.submit(start) for _ in range(4)]
    assert [one.result() for one in started] == ["mine"] * 4


@OLD_VERSIONS
def test_tables_that_an_earlier_server_is_using_are_not_changed_under_it(
    data: Path, store: AdapterStore, open_store: OpenStore, as_old_version: Callable[[Path], None]
) -> None:
    create(store)
    store.close()
    path = data / "finetunes.db"
    as_old_version(path)
    before = tables_of(path)
    earlier = DataLock(data)
    earlier.share()
    with pytest.raises(DataFolderError, match=r"finetunes\.db has to be changed .* a server of an earlier one uses it"):
        open_store()
    assert tables_of(path) == before
    earlier.close()
    assert open_store().find("acc", "mine").state is FinetuneState.AWAITING_FILES


@pytest.mark.parametrize(
    ("statement", "version"),
    [("PRAGMA user_version = 99", "99"), ("UPDATE finetunes_version SET version_num = 'wings'", "wings")],
    ids=["number", "revision"],
)
def test_a_database_of_a_later_version_is_refused_and_untouched(
    data: Path, store: AdapterStore, open_store: OpenStore, statement: str, version: str
) -> None:
    create(store)
    store.close()
    path = data / "finetunes.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()
    before = rows_of(path)
    for is_running in (False, True):
        later = DataLock(data)
        later.share()
        if not is_running:
            later.close()
        with pytest.raises(
            DataFolderError, match=f"written by a later Intaglio: its tables have version {version}, and this one"
        ):
            open_store()
        later.close()
        assert rows_of(path) == before


def test_a_file_that_is_no_database_is_refused(data: Path, open_store: OpenStore) -> None:
    data.mkdir()
    (data / "finetunes.db").write_bytes(b"no database at all, but long enough to be asked for its header " * 20)
    with pytest.raises(DataFolderError, match=r"finetunes\.db cannot be used as the database of finetunes"):
        open_store()
