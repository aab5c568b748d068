from __future__ import annotations

import pytest

from intaglio.errors import SettingsError
from intaglio.settings import load_settings


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("INTAGLIO_")]:
        monkeypatch.delenv(name)


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTAGLIO_PORT", "9000")
    monkeypatch.setenv("INTAGLIO_MAX_RUNNING", "5")
    settings = load_settings(port=9001)
    assert (settings.port, settings.max_running) == (9001, 5)


def test_a_misspelt_variable_is_an_error_that_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTAGLIO_PROT", "9000")
    with pytest.raises(SettingsError, match=r"INTAGLIO_PROT; known: .*INTAGLIO_PORT"):
        load_settings()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"port": 70000}, "port"),
        ({"max_running": 0}, "max_running"),
        ({"format": "f8"}, "format"),
        ({"no_such_option": 1}, "no_such_option"),
    ],
)
def test_a_bad_option_is_named_with_its_value(options: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError, match=f"'{named}'.*got"):
        load_settings(**options)


def test_a_list_in_the_environment_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTAGLIO_MODEL", '["a=b", "c=d"]')
    assert load_settings().model == ("a=b", "c=d")
    monkeypatch.setenv("INTAGLIO_MODEL", "a=b")
    with pytest.raises(SettingsError, match="INTAGLIO_MODEL is 'a=b'; a JSON list is needed"):
        load_settings()


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]
