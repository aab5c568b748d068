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


def test_a_misspelt_variable_is_an_error_that_names_the_one_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTAGLIO_PROT", "9000")
    with pytest.raises(SettingsError, match=r"INTAGLIO_PROT; did you mean INTAGLIO_PORT\?"):
        load_settings()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"port": 70000}, "port"),
        ({"max_running": 0}, "max_running"),
        ({"format": "f8"}, "format"),
        ({"prefix_cache": "maybe"}, "prefix_cache"),
        ({"model": 5}, "model"),
    ],
)
def test_a_bad_option_is_named_with_its_value(options: dict[str, object], named: str) -> None:
    (value,) = options.values()
    with pytest.raises(SettingsError, match=f"^setting '{named}' is {value!r}; "):
        load_settings(**options)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"threads": 0}, "a whole number from 1 to 256 is needed"),
        ({"threads": "two"}, "a whole number from 1 to 256 is needed"),
        ({"max_waiting": 0}, "a whole number of at least 1 is needed"),
        ({"context_window": 3}, "a whole number of at least 16 is needed"),
        ({"kernels": "sse9"}, "one of auto, reference, amx, avx512vnni, avx2, neon, plain is needed"),
        ({"prefix_cache": "maybe"}, "true or false is needed"),
        ({"model": 5}, "a list of strings is needed"),
        ({"data_dir": 5}, "a path is needed"),
        ({"host": 5}, "a string is needed"),
    ],
)
def test_the_message_of_a_bad_option_has_its_allowed_values(options: dict[str, object], needed: str) -> None:
    with pytest.raises(SettingsError, match=needed):
        load_settings(**options)


def test_an_unknown_setting_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'no_such_option'; known: .*threads"):
        load_settings(no_such_option=1)


def test_whole_numbers_may_come_as_text() -> None:
    assert load_settings(threads="3").threads == 3


def test_a_list_in_the_environment_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTAGLIO_MODEL", '["a=b", "c=d"]')
    assert load_settings().model == ("a=b", "c=d")
    monkeypatch.setenv("INTAGLIO_MODEL", "a=b")
    with pytest.raises(SettingsError, match=r"INTAGLIO_MODEL is 'a=b'.*JSON"):
        load_settings()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://user:s3cr3t@host/name", "it begins with mysql://, and postgresql:// is needed"),
        ("postgresql+asyncpg://user:s3cr3t@host/name", "it begins with postgresql+asyncpg://"),
        ("user:s3cr3t@host/name", "it has no scheme"),
        (17, "a string is needed"),
    ],
)
def test_a_database_of_another_kind_is_refused_without_its_password(url: object, told: str) -> None:
    with pytest.raises(SettingsError, match="'database_url' is not shown here; ") as raised:
        load_settings(database_url=url)
    assert told in str(raised.value)
    assert "s3cr3t" not in f"{raised.value} {raised.value.__cause__}"


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql", "postgres"])
def test_a_database_may_be_named_as_hosts_of_databases_do(scheme: str) -> None:
    settings = load_settings(database_url=f"{scheme}://user:p%40ss@host/name?sslmode=require")
    assert settings.database_url == "postgresql+psycopg://user:p%40ss@host/name?sslmode=require"


def test_the_settings_do_not_show_the_password_of_the_database() -> None:
    settings = load_settings(database_url="postgresql+psycopg://user:s3cr3t@host/name")
    assert settings.database_url is not None
    assert "s3cr3t" not in f"{settings!r} {settings}"


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]
