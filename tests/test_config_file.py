"""`--config intaglio.toml`: what may stand in it, what wins over it, and how mistakes are named."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest

from intaglio.errors import SettingsError
from intaglio.settings import DEFAULT_MODEL_ID, Settings, load_settings
from tests.helpers.commands import run_in_process

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "intaglio.toml"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("INTAGLIO_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "intaglio.toml"


def load(file: Path, text: str, **options: object) -> Settings:
    file.write_text(text)
    return load_settings(config=file, **options)


def test_the_command_line_wins_over_the_environment_and_the_environment_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTAGLIO_MAX_WAITING", "7")
    monkeypatch.setenv("INTAGLIO_MAX_RUNNING", "7")
    text = "port = 1\nmax_waiting = 1\nmax_running = 1\nprefix_cache = false\n"
    settings = load(file, text, max_running=9)
    assert (settings.port, settings.max_waiting, settings.max_running) == (1, 7, 9)
    assert settings.prefix_cache is False
    assert settings.host == "127.0.0.1", "what is nowhere has its default"


def test_the_variable_names_the_file_for_every_command(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("threads = 3")
    monkeypatch.setenv("INTAGLIO_CONFIG", str(file))
    assert load_settings().threads == 3
    other = file.with_name("other.toml")
    other.write_text("threads = 4")
    assert load_settings(config=other).threads == 4


def test_models_are_a_table_or_a_list_and_options_replace_them_all(file: Path) -> None:
    table = f'[models]\n"@cf/a/b" = "hf:o/r@v1"\n"{DEFAULT_MODEL_ID}" = "bundled"\n'
    assert load(file, table).model == ("@cf/a/b=hf:o/r@v1", DEFAULT_MODEL_ID)
    assert load(file, '[models]\n"@cf/a/b" = "bundled"\n').model == (f"@cf/a/b={DEFAULT_MODEL_ID}",)
    assert load(file, 'tokenizer = "mine"\n[models]\nmine = "/m"\n').tokenizer == "mine"
    assert load(file, 'model = ["@cf/a/b=/x"]').model == ("@cf/a/b=/x",)
    assert load(file, table, model=["@c/d=/y"]).model == ("@c/d=/y",)


def test_a_relative_path_is_relative_to_the_folder_of_the_file(file: Path) -> None:
    text = 'data_dir = "data"\ncache_dir = "~/cache"\ntokenizer = "t.json"\n[models]\na = "sub/m.gguf"\nb = "/abs"\n'
    settings = load(file, text)
    folder = file.parent
    assert settings.data_dir == folder / "data"
    assert settings.cache_dir == Path("~/cache")
    assert settings.tokenizer == str(folder / "t.json")
    assert settings.model == (f"a={folder}/sub/m.gguf", "b=/abs")
    assert load(file, 'tokenizer = "@a/b"').tokenizer == "@a/b"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot = 1", "unknown key 'prot'; did you mean port?"),
        ("kv-cache-bytes = 1", "unknown key 'kv-cache-bytes'; did you mean kv_cache_bytes?"),
        ("[model]\na = 'b'", "model is {'a': 'b'}; a list of strings is needed"),
        ("[server]\nport = 1", r"unknown key 'server'; settings are keys at the top .* \[models\]"),
        ("xyzzy = 1", "unknown key 'xyzzy'; known: host, port"),
        ("config = 'other.toml'", "unknown key 'config'"),
        ("url = 'http://x'", "unknown key 'url'"),
        ("port = '8080'", "port is '8080'; a whole number is needed"),
        ("port = 80.5", "port is 80.5; a whole number is needed"),
        ("threads = true", "threads is True; a whole number is needed"),
        ("prefix_cache = 1", "prefix_cache is 1; true or false is needed"),
        ("host = 1", "host is 1; a string is needed"),
        ("data_dir = 1", "data_dir is 1; a string is needed"),
        ("format = 8", "format is 8; a string is needed"),
        ("model = 'a=b'", "model is 'a=b'; a list of strings is needed"),
        ("model = [1]", r"model is \[1\]; a list of strings is needed"),
        ("models = ['a=b']", r"models is \['a=b'\]; a table is needed"),
        ("[models]\na = 1", r"'a' in \[models\] is 1; \"ID\" = \"PATH\""),
        ("[models]\na = ''", r"'a' in \[models\] is ''"),
        ("model = ['a=b']\n[models]\na = 'b'", r"both model and \[models\] are given"),
        ("port = 70000", "setting 'port' is 70000; a whole number from 0 to 65535 is needed"),
        ("format = 'f8'", "setting 'format' is 'f8'; one of auto, "),
    ],
)
def test_a_mistake_in_the_file_is_named_with_file_and_key(file: Path, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=f"^{re.escape(str(file))}: .*{sentence}"):
        load(file, text)


def test_a_value_out_of_bounds_on_the_command_line_is_not_blamed_on_the_file(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"^setting 'port' is 70000"):
        load(file, "port = 1", port=70000)


def test_a_file_that_cannot_be_read_or_is_not_toml_is_named(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"config .*intaglio.toml cannot be read: No such file"):
        load_settings(config=file)
    with pytest.raises(SettingsError, match=r"is not valid TOML: .*line 1"):
        load(file, "port: 1")
    with pytest.raises(SettingsError, match=r"is not valid TOML: "):
        load(file, "a = 1\na = 2")
    file.write_bytes(b"a = '\xff'")
    with pytest.raises(SettingsError, match=r"is not valid TOML: .*utf-8"):
        load_settings(config=file)
    file.write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(SettingsError, match=r"more than 1048576 bytes"):
        load_settings(config=file)


def test_a_secret_is_in_no_message(file: Path) -> None:
    for text in ("api_tokens = 's3cr3t'", "database_url = ['s3cr3t']", "database_url = 'mysql://s3cr3t@h'"):
        with pytest.raises(SettingsError, match="not shown here") as raised:
            load(file, text)
        assert "s3cr3t" not in f"{raised.value} {raised.value.__cause__}"


@pytest.mark.parametrize(("mode", "warns"), [(0o644, True), (0o640, True), (0o600, False)])
def test_a_secret_in_a_file_that_others_can_read_is_warned_of(
    file: Path, caplog: pytest.LogCaptureFixture, mode: int, warns: bool
) -> None:
    file.write_text("api_tokens = ['s3cr3t']")
    file.chmod(mode)
    with caplog.at_level(logging.WARNING):
        settings = load_settings(config=file)
    assert ("can be read by other users: chmod 600" in caplog.text) is warns
    assert "s3cr3t" not in f"{caplog.text} {settings!r}"


def test_a_file_without_secrets_may_be_read_by_others(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.touch(0o644)
    load(file, "port = 1")
    assert caplog.text == ""


def test_the_example_can_be_loaded_also_with_all_that_is_commented_out(file: Path) -> None:
    assert load_settings(config=EXAMPLE).model == (DEFAULT_MODEL_ID,)
    text = re.sub(r'^# (?=("@[^"]+"|[a-z_]+) = )', "", EXAMPLE.read_text(), flags=re.MULTILINE)
    settings = load(file, text)
    assert settings.context_window == 3500
    assert len(settings.model) == 4
    assert settings.data_dir == file.parent / "data"


def test_the_option_of_serve_reads_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("threads = 0")
    ended = run_in_process(monkeypatch, capsys, "serve", "--config", str(file))
    assert ended.status == 1
    assert ended.err.startswith(f"intaglio: {file}: setting 'threads' is 0; a whole number from 1 to 256")
