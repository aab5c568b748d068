"""The page of the command line: every command with its arguments and options, from the commands themselves.

    python scripts/site/cli_reference.py    prints it

Deterministic: it depends on neither the terminal nor the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Any

import typer.main

from intaglio.cli import build_cli

_TOP = """# Command line: every option

Made from the commands of this version; `intaglio COMMAND --help` shows the same.
[The command line](command_line.md) says what they are for.
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its whole name, groups before their commands."""
    root = typer.main.get_command(build_cli())
    yield from _below("intaglio", root)


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for inner, one in getattr(command, "commands", {}).items():
        yield from _below(f"{name} {inner}", one)


def cli_reference() -> str:
    """The page as Markdown."""
    return "\n".join([_TOP, *(_section(name, command) for name, command in commands())])


def _section(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"## {name}", "", *_paragraphs(command.help or ""), "", "```text", usage, "```", ""]
    rows = [(parameter, parameter.get_help_record(context)) for parameter in command.get_params(context)]
    cells = [record for parameter, record in rows if record is not None and "--help" not in parameter.opts]
    if cells:
        lines += ["| argument or option | |", "|---|---|"]
        lines += [f"| {_code(names)} | {_cell(says)} |" for names, says in cells]
    inner = getattr(command, "commands", {})
    if inner:
        lines += ["", "| command | |", "|---|---|"]
        for one, found in inner.items():
            anchor = f"{name} {one}".replace(" ", "-")
            lines.append(f"| [`{one}`](#{anchor}) | {_cell(_summary(found))} |")
    return "\n".join([*lines, ""])


def _paragraphs(text: str) -> list[str]:
    """The help of a command; the control character that keeps click from wrapping a paragraph is left out."""
    return text.replace("\b\n", "").strip().splitlines()


def _summary(command: Any) -> str:
    """The first paragraph of the command's help."""
    return (command.help or "").strip().split("\n\n")[0]


def _code(text: str) -> str:
    return f"`{' '.join(text.split())}`".replace("|", "\\|")


def _cell(text: str) -> str:
    """Text of a table's cell. What Markdown or HTML would take for its own is escaped, but for code in backticks."""
    parts = re.split(r"(`[^`]+`)", " ".join(text.split()))
    parts[::2] = [re.sub(r"([\\*_\[\]])", r"\\\1", escape(part, quote=False)) for part in parts[::2]]
    return "".join(parts).replace("|", "\\|")


if __name__ == "__main__":
    print(cli_reference())
