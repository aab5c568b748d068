from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.api.startup import model_paths
from intaglio.errors import SettingsError
from intaglio.settings import DEFAULT_MODEL_ID, Settings, load_settings


def settings(*entries: str) -> Settings:
    return load_settings(model=entries)


def test_no_entry_and_the_bundled_models_id_alone_both_give_the_bundled_model() -> None:
    (bundled,) = model_paths(settings()).items()
    assert bundled[0] == DEFAULT_MODEL_ID
    beside = model_paths(settings("@local/mine=/some/folder", DEFAULT_MODEL_ID))
    assert beside == {"@local/mine": Path("/some/folder"), DEFAULT_MODEL_ID: bundled[1]}


@pytest.mark.parametrize("entry", ["", "no-path", "=/path", "id="])
def test_an_entry_that_is_not_id_and_path_is_refused_by_name(entry: str) -> None:
    with pytest.raises(SettingsError, match=f"{entry!r} is not ID=PATH"):
        model_paths(settings(entry))


def test_a_model_given_twice_is_refused_with_both_paths() -> None:
    with pytest.raises(SettingsError, match="/one and /two"):
        model_paths(settings("@local/m=/one", "@local/m=/two"))
