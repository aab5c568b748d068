"""Databases that cannot be opened are refused in a sentence, without the password."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from intaglio.batches.tables import SCHEMA as BATCHES
from intaglio.database import open_database
from intaglio.errors import DatabaseError, DataFolderError, SettingsError
from intaglio.finetunes.db.tables import SCHEMA as FINETUNES
from tests.helpers.postgresql import PostgresqlServer

SECRET = "s3cr3t-passw0rd"


@pytest.mark.slow
def test_finetunes_and_batches_share_a_database_and_their_writers_do_not_wait_for_each_other(
    tmp_path: Path, postgresql_url: str
) -> None:
    finetunes, batches = (open_database(schema, tmp_path / "x", postgresql_url) for schema in (FINETUNES, BATCHES))
    with finetunes.writing() as one, batches.writing() as other:
        assert one.scalar(sa.text("SELECT count(*) FROM finetunes")) == 0
        assert other.scalar(sa.text("SELECT count(*) FROM batches")) == 0
    assert not (tmp_path / "x").exists()
    finetunes.close()
    batches.close()


@pytest.mark.slow
def test_a_database_without_an_encoding_holds_text_all_the_same(
    tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    database = open_database(FINETUNES, tmp_path / "x", postgresql_server.new_database("SQL_ASCII"))
    with database.writing() as connection:
        assert connection.scalar(sa.text("SELECT :text"), {"text": "Ä日本"}) == "Ä日本"
    database.close()


@pytest.mark.slow
def test_a_database_whose_encoding_lacks_characters_is_refused_before_it_has_tables(
    tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    url = postgresql_server.new_database("LATIN1")
    with pytest.raises(DataFolderError, match=r"is encoded in LATIN1, .* create it with ENCODING 'UTF8'"):
        open_database(FINETUNES, tmp_path / "x", url)
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_a_writer_waits_for_the_previous_one_up_to_a_bound(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for module in ("engines", "database"):
        monkeypatch.setattr(f"intaglio.database.{module}.LOCK_TIMEOUT_S", 0.05)
    server_url = request.getfixturevalue("postgresql_url") if where == "postgresql" else None
    database = open_database(FINETUNES, tmp_path / "x", server_url)
    insert = sa.text("INSERT INTO finetune_store VALUES ('id')")
    with database.writing() as one:
        one.execute(insert)
        with pytest.raises(DatabaseError, match="does not respond; try again"), database.writing():
            pass
    with pytest.raises(sa.exc.IntegrityError), database.writing() as other:  # it is free, and the first row is there
        other.execute(insert)
    database.close()


@pytest.mark.slow
def test_waiting_for_a_stalled_database_is_bounded(
    tmp_path: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(FINETUNES, tmp_path / "x", postgresql_url)
    count = sa.text("SELECT count(*) FROM finetunes")
    with psycopg.connect(postgresql_url.replace("+psycopg", "")) as other:
        other.execute("LOCK TABLE finetunes")
        with monkeypatch.context() as patched:
            patched.setattr("intaglio.database.connection.RESPONSE_TIMEOUT_S", 0.05)
            for begin in (database.reading, database.writing):
                with pytest.raises(DatabaseError, match="does not respond; try again"), begin() as connection:
                    connection.scalar(count)
        other.rollback()
    with database.reading() as connection:
        assert connection.scalar(count) == 0
    database.close()


@pytest.mark.slow
def test_a_reader_sees_one_state_while_others_write(tmp_path: Path, postgresql_url: str) -> None:
    database = open_database(FINETUNES, tmp_path / "x", postgresql_url)
    count, insert = sa.text("SELECT count(*) FROM finetune_store"), sa.text("INSERT INTO finetune_store VALUES ('id')")
    with database.reading() as reader:
        assert reader.scalar(count) == 0
        with database.writing() as writer:
            writer.execute(insert)
        assert reader.scalar(count) == 0
    with database.reading() as reader:
        assert reader.scalar(count) == 1
    with pytest.raises(DatabaseError), database.reading() as reader:
        reader.execute(insert)
    database.close()


def _said(error: BaseException | None) -> str:
    """Everything that a traceback of the exception would show of messages."""
    texts = []
    while error is not None:
        texts.append(f"{error} {error!r}")
        error = error.__cause__ if error.__suppress_context__ else error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (f"postgresql+psycopg://user:{SECRET}@127.0.0.1:1/name", DataFolderError),
        (f"postgresql+psycopg://user:{SECRET}@127.0.0.1:port/name", SettingsError),
        (f"postgresql+psycopg://user:@{SECRET}@127.0.0.1/name", SettingsError),
    ],
    ids=["no server", "port", "unescaped"],
)
def test_no_message_and_no_log_shows_the_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str, error: type[Exception]
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(error, match="database") as raised:
        open_database(FINETUNES, tmp_path / "x", url)
    assert SECRET not in _said(raised.value)
    assert SECRET not in caplog.text


@pytest.mark.slow
def test_a_wrong_database_name_is_reported_without_the_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, postgresql_server: PostgresqlServer
) -> None:
    url = postgresql_server.new_database().replace("postgres@/", f"postgres:{SECRET}@/no_")
    with pytest.raises(DataFolderError, match=r"database at database_url cannot be used .* does not exist") as raised:
        open_database(FINETUNES, tmp_path / "x", url)
    assert SECRET not in _said(raised.value) + caplog.text


def test_a_folder_that_cannot_hold_a_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "finetunes.db").mkdir()
    with pytest.raises(DataFolderError, match=r"finetunes\.db cannot be used as a database: Is a directory"):
        open_database(FINETUNES, tmp_path / "finetunes.db", None)


def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    folder = tmp_path / "a?b %20 #c, ä"
    folder.mkdir()
    for _ in range(2):
        open_database(FINETUNES, folder / "finetunes.db", None).close()
    assert (folder / "finetunes.db").stat().st_size > 0


def test_a_missing_driver_is_named_with_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingsError, match=r"pip install 'intaglio\[postgresql\]'"):
        open_database(FINETUNES, tmp_path / "x", f"postgresql+psycopg://user:{SECRET}@127.0.0.1/name")
