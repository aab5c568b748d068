from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from intaglio.cli import build_cli
from intaglio.settings import Settings
from intaglio.version import __version__
from tests.helpers.commands import run_in_process


def test_version_is_printed() -> None:
    assert CliRunner().invoke(build_cli(), ["version"]).output.strip() == __version__


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_an_option_with_its_help(name: str) -> None:
    shown = CliRunner().invoke(build_cli(), ["serve", "--help"], env={"COLUMNS": "400", "TERM": "dumb"}).output
    assert f"--{name.replace('_', '-')}" in shown
    assert f"INTAGLIO_{name.upper()}" in shown


def test_an_unknown_option_is_refused() -> None:
    result = CliRunner().invoke(build_cli(), ["serve", "--prot", "1"])
    assert result.exit_code == 2
    assert "--prot" in result.output


def commands(cli: Any, *before: str) -> Iterator[tuple[str, ...]]:
    """Every command that does something, with the words that lead to it."""
    for name, command in typer.main.get_command(cli).commands.items() if not before else cli.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *before, name)
        else:
            yield (*before, name)


COMMANDS = sorted(commands(build_cli()))
WITHOUT_JSON = {("chat",), ("serve",)}  # they print no result that a script could read


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_has_an_example_that_its_options_allow(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(build_cli(), [*words, "--help"], env={"COLUMNS": "400", "TERM": "dumb"}).output
    found = re.search(r"Example: .*?(intaglio .*)", shown)
    assert found, shown
    assert found[1].startswith(f"intaglio {' '.join(words)}")
    for option in re.findall(r" (--[a-z-]+)", found[1]):
        assert option in shown.replace(found[1], "")
    assert ("--json" in shown) == (words not in WITHOUT_JSON)


def test_the_version_is_one_object_for_scripts() -> None:
    result = CliRunner().invoke(build_cli(), ["version", "--json"])
    assert json.loads(result.stdout)["version"] == __version__


def test_an_error_with_json_leaves_standard_output_empty(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ended = run_in_process(monkeypatch, capsys, "pack", str(tmp_path / "none.gguf"), "--verify", "--json")
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert ended.err.startswith("intaglio: ")
