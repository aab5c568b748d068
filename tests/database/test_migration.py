"""A new database has the tables of today; an older one is upgraded; one of an unknown version is left alone."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from intaglio.batches.tables import SCHEMA as BATCHES
from intaglio.conversations.tables import SCHEMA as RESPONSES
from intaglio.database import Schema, open_database
from intaglio.database.migration import upgrade_tables
from intaglio.errors import DataFolderError
from intaglio.finetunes import FinetuneStore
from intaglio.finetunes.db.tables import SCHEMA as FINETUNES
from intaglio.finetunes.storage.data_lock import DataLock
from intaglio.lora.peft.reader import AdapterLimits

SCHEMAS = pytest.mark.parametrize("schema", [FINETUNES, BATCHES, RESPONSES], ids=lambda schema: schema.name)

FIRST = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "first", None
def upgrade():
    op.create_table("things", sa.Column("id", sa.Integer, primary_key=True))
"""
SECOND = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "second", "first"
def upgrade():
    op.add_column("things", sa.Column("name", sa.Text))
    op.create_index("things_name", "things", ["name"])
"""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database."""
    found: str = (
        request.getfixturevalue("postgresql_url") if request.param == "postgresql" else f"sqlite:///{tmp_path}/a"
    )
    return found


@SCHEMAS
def test_the_revisions_lead_to_the_current_tables(url: str, schema: Schema) -> None:
    engine = sa.create_engine(url)
    script = ScriptDirectory(str(schema.revisions), version_locations=[str(schema.revisions)])
    first = script.get_base()
    assert (script.get_heads(), script.get_bases()) == ([schema.head], [first])
    with engine.begin() as connection:  # new databases never run the first revision
        context = MigrationContext.configure(connection)
        with Operations.context(context):
            script.get_revision(first).module.upgrade()
        connection.exec_driver_sql(f"CREATE TABLE {schema.version_table} (version_num VARCHAR(32) PRIMARY KEY)")
        connection.exec_driver_sql(f"INSERT INTO {schema.version_table} VALUES ('{first}')")
    with engine.begin() as connection:
        upgrade_tables(connection, schema, "it", alone=True)
        context = MigrationContext.configure(connection, opts={"version_table": schema.version_table})
        assert context.get_current_revision() == schema.head
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


@SCHEMAS
def test_each_database_starts_with_one_first_revision(tmp_path: Path, schema: Schema) -> None:
    path = tmp_path / "new.db"
    for _ in range(2):  # the second time there is nothing to do
        open_database(schema, path, None).close()
        with closing(sqlite3.connect(path)) as database:
            assert database.execute(f"SELECT version_num FROM {schema.version_table}").fetchall() == [("first",)]
    assert [file.name for file in schema.revisions.glob("*.py")] == ["v1_first.py"]


@pytest.fixture
def schema(tmp_path: Path) -> Schema:
    """Tables with two revisions."""
    folder = tmp_path / "revisions"
    folder.mkdir()
    (folder / "v1.py").write_text(FIRST)
    (folder / "v2.py").write_text(SECOND)
    metadata = sa.MetaData()
    name = sa.Column("name", sa.Text, index=False)
    sa.Table("things", metadata, sa.Column("id", sa.Integer, primary_key=True), name, sa.Index("things_name", name))
    return Schema("things", metadata, "second", folder, 1)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of the first revision with one row."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE things (id INTEGER NOT NULL PRIMARY KEY); INSERT INTO things VALUES (7);"
            "CREATE TABLE things_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);"
            "INSERT INTO things_version VALUES ('first');"
        )
    return path


def content(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def test_a_database_of_an_earlier_revision_is_upgraded_with_its_rows(old: Path, schema: Schema) -> None:
    for _ in range(2):
        open_database(schema, old, None).close()
        with closing(sqlite3.connect(old)) as database:
            assert database.execute("SELECT id, name FROM things").fetchall() == [(7, None)]
            assert database.execute("SELECT version_num FROM things_version").fetchall() == [("second",)]


def test_an_upgrade_that_fails_at_any_statement_leaves_the_old_tables(old: Path, schema: Schema) -> None:
    before = content(old)
    for number in itertools.count():
        try:
            with failing_after(number):
                open_database(schema, old, None).close()
            break
        except ZeroDivisionError:
            assert content(old) == before
    assert number > 5
    assert content(old) != before


@contextmanager
def failing_after(number: int) -> Iterator[None]:
    """Every statement after the first `number` fails in this block."""
    left = itertools.count(number, -1)

    def fail(*_: object) -> None:
        if next(left) <= 0:
            raise ZeroDivisionError

    sa.event.listen(sa.Engine, "before_cursor_execute", fail)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", fail)


def test_servers_that_start_together_upgrade_the_tables_once(old: Path, schema: Schema) -> None:
    together = threading.Barrier(4)

    def start() -> int | None:
        together.wait()
        database = open_database(schema, old, None)
        try:
            with database.reading() as connection:
                return connection.scalar(sa.text("SELECT id FROM things WHERE name IS NULL"))
        finally:
            database.close()

    with ThreadPoolExecutor(4) as pool:
        started = [pool.submit(start) for _ in range(4)]
    assert [one.result() for one in started] == [7] * 4


def test_tables_that_another_server_uses_are_not_changed(old: Path, schema: Schema) -> None:
    before = content(old)
    with pytest.raises(DataFolderError, match=r"old\.db has to be changed .* a server of an earlier version uses it"):
        open_database(schema, old, None, alone=False)
    assert content(old) == before


def test_a_server_is_alone_in_its_data_folder_until_another_one_runs(tmp_path: Path) -> None:
    with closing(DataLock(tmp_path)) as first:
        assert first.alone
        first.share()
        with closing(DataLock(tmp_path)) as second:
            assert not second.alone
    with closing(DataLock(tmp_path)) as last:
        assert last.alone


@pytest.mark.parametrize(
    ("statement", "version"),
    [
        ("UPDATE finetunes_version SET version_num = 'wings'", "revision 'wings'"),
        ("DROP TABLE finetunes_version", "no revision"),
    ],
    ids=["unknown revision", "no revision"],
)
@pytest.mark.parametrize("other_runs", [False, True])
def test_a_database_of_an_unknown_version_is_refused_and_untouched(
    tmp_path: Path, statement: str, version: str, other_runs: bool
) -> None:
    open_store: Callable[[], FinetuneStore] = lambda: FinetuneStore(tmp_path, AdapterLimits(), max_finetunes=3)  # noqa: E731
    open_store().close()
    path = tmp_path / "finetunes.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()
    before, files = content(path), files_of(tmp_path)
    with closing(DataLock(tmp_path)) as other:
        other.share()
        if not other_runs:
            other.close()
        with pytest.raises(
            DataFolderError, match=rf"finetunes\.db was written by another version .* have {version}, .* up to 'first'"
        ):
            open_store()
    assert files_of(tmp_path) == files
    assert content(path) == before


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        ("CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('keep me')", "the table 'notes'"),
        ("PRAGMA journal_mode = WAL; CREATE TABLE notes (text TEXT)", "the table 'notes'"),
        ("CREATE TABLE batches_version (version_num TEXT)", "the table 'batches_version'"),
        ("PRAGMA application_id = 0x1234", "the application_id 0x1234"),
        ("CREATE TABLE finetunes_version (number INT)", "the table 'finetunes_version'"),
    ],
    ids=["tables", "write-ahead log", "batches", "application id", "a table of the same name"],
)
def test_a_database_of_another_program_is_refused_and_untouched(tmp_path: Path, statements: str, found: str) -> None:
    path = tmp_path / "finetunes.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(statements)
    before = files_of(tmp_path)
    message = rf"finetunes\.db is a database of another program: it has {found} and no finetunes"
    with pytest.raises(DataFolderError, match=message):
        open_database(FINETUNES, path, None)
    assert files_of(tmp_path) == before


def test_a_database_of_another_program_whose_tables_are_in_the_log_only_is_refused_and_untouched(
    tmp_path: Path,
) -> None:
    """As after a crash of the other program."""
    (tmp_path / "running").mkdir()
    (tmp_path / "crashed").mkdir()
    path = tmp_path / "crashed" / "finetunes.db"
    with closing(sqlite3.connect(tmp_path / "running" / "finetunes.db")) as database:
        database.executescript("PRAGMA journal_mode = WAL; CREATE TABLE notes (text TEXT)")
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / "running" / f"finetunes.db{suffix}", f"{path}{suffix}")
    before = files_of(path.parent)
    with pytest.raises(DataFolderError, match="a database of another program: it has the table 'notes'"):
        open_database(FINETUNES, path, None)
    assert files_of(path.parent) == before


@SCHEMAS
@pytest.mark.parametrize("damage", ["DROP TABLE {table}", "ALTER TABLE {table} RENAME COLUMN {column} TO other"])
def test_a_database_whose_tables_are_not_those_of_its_revision_is_refused_and_untouched(
    tmp_path: Path, schema: Schema, damage: str
) -> None:
    path = tmp_path / "some.db"
    open_database(schema, path, None).close()
    table = schema.metadata.sorted_tables[-1]
    column = next(column for column in table.columns if not column.primary_key)
    with closing(sqlite3.connect(path)) as database:
        database.execute(damage.format(table=table.name, column=column.name))
        database.commit()
    before = files_of(tmp_path)
    with pytest.raises(DataFolderError, match=rf"unreleased build .* revision 'first' and no {table.name}\."):
        open_database(schema, path, None)
    assert files_of(tmp_path) == before


def test_a_database_of_another_program_is_refused_while_that_writes_to_it(tmp_path: Path) -> None:
    path = tmp_path / "finetunes.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript("PRAGMA journal_mode = WAL; CREATE TABLE notes (text TEXT)")  # only in the log yet
        before = list(database.iterdump())
        with pytest.raises(DataFolderError, match="a database of another program: it has the table 'notes'"):
            open_database(FINETUNES, path, None)
        assert list(database.iterdump()) == before


def files_of(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder, with its content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "finetunes.db"
    path.write_bytes(b"not a database, but long enough to be asked for its header " * 20)
    path.with_name("finetunes.db-wal").write_bytes(b"nor a log")
    with pytest.raises(DataFolderError, match=r"finetunes\.db cannot be used as the database of finetunes"):
        open_database(FINETUNES, path, None)
