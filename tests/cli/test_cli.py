from __future__ import annotations

import pytest
from typer.testing import CliRunner

from intaglio.cli import build_cli
from intaglio.settings import Settings
from intaglio.version import __version__


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
