from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from intaglio.api.startup import model_paths, open_stores
from intaglio.errors import DataFolderError, SettingsError
from intaglio.settings import DEFAULT_MODEL_ID, Settings, load_settings


def settings(*entries: str) -> Settings:
    return load_settings(model=entries)


def test_no_entry_and_the_bundled_models_id_alone_both_give_the_bundled_model(tmp_path: Path) -> None:
    (bundled,) = model_paths(settings()).items()
    assert bundled[0] == DEFAULT_MODEL_ID
    beside = model_paths(settings(f"@local/mine={tmp_path}", DEFAULT_MODEL_ID))
    assert beside == {"@local/mine": tmp_path, DEFAULT_MODEL_ID: bundled[1]}


@pytest.mark.parametrize("entry", ["", "no-path", "=/path", "id="])
def test_an_entry_that_is_not_id_and_path_is_refused_by_name(entry: str) -> None:
    with pytest.raises(SettingsError, match=f"{entry!r} is not ID=PATH"):
        model_paths(settings(entry))


def test_a_model_given_twice_is_refused_with_both_paths() -> None:
    with pytest.raises(SettingsError, match="/one and /two"):
        model_paths(settings("@local/m=/one", "@local/m=/two"))


@pytest.mark.parametrize("name", ["batches", "responses"])
def test_a_start_that_refuses_a_database_leaves_none_open(tmp_path: Path, name: str) -> None:
    given = load_settings(data_dir=tmp_path)
    for store in open_stores(given, []):
        store.close()
    with closing(sqlite3.connect(tmp_path / f"{name}.db")) as database:
        database.execute(f"UPDATE {name}_version SET version_num = 'wings'")
        database.commit()
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(DataFolderError, match=rf"{name}\.db was written by another version"):
        open_stores(given, [])
    assert {path.name for path in tmp_path.iterdir()} == before
