"""The generated page of the command line has every command and option."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from intaglio.cli import build_cli

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "site" / "cli_reference.py"


def page(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for inner, one in getattr(command, "commands", {}).items():
        yield from commands(f"{name} {inner}", one)


def test_every_command_has_a_section_with_all_its_options() -> None:
    sections = {part.split("\n", 1)[0]: part for part in page().split("\n## ")[1:]}
    found = dict(commands("intaglio", typer.main.get_command(build_cli())))
    assert list(sections) == list(found)
    for name, command in found.items():
        options = [option for one in command.params if not getattr(one, "hidden", False) for option in one.opts]
        missing = [option for option in options if option not in sections[name]]
        assert missing == [], name


def test_it_depends_on_neither_the_terminal_nor_the_settings() -> None:
    assert page() == page(COLUMNS="40", NO_COLOR="1", INTAGLIO_PORT="9", FORCE_COLOR="1")
