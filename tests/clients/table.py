"""The tables client x feature of docs/clients.md: which tests check a cell, and how it is written."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.clients.clients import CLIENTS, FEATURES, ROOT, Client
from tests.clients.tools.tools import JOBS, TOOLS

PAGE = ROOT / "docs" / "clients.md"
WORKS = "yes"
FAILS = "**no**"

Cell = tuple[str, str]  # (title of the client, feature)


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the page: a row for each client, a column for each feature.

    name      the pytest marker of its tests; `make <name>-table` writes it
    package   of its test modules
    heading   of the first column
    features  feature -> heading of its column
    """

    name: str
    package: str
    heading: str
    rows: tuple[Client, ...]
    features: Mapping[str, str]

    @property
    def start(self) -> str:
        """The line of the page before the table."""
        return f"<!-- The table is written by `make {self.name}-table`. -->"

    @property
    def end(self) -> str:
        """The line of the page after the table."""
        return f"<!-- End of the table of {self.name}. -->"

    @property
    def folder(self) -> Path:
        """Where its test modules are."""
        return ROOT.joinpath(*self.package.split("."))


CLIENT_TABLE = Table("clients", "tests.clients", "client", CLIENTS, FEATURES)
TOOL_TABLE = Table("tools", "tests.clients.tools", "tool", TOOLS, JOBS)
TABLES = (CLIENT_TABLE, TOOL_TABLE)


def shows(feature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a test: if it passes, its client has this feature with our server."""
    assert feature in FEATURES or feature in JOBS, feature
    return pytest.mark.shows(feature)


def checked_cells(table: Table) -> dict[Cell, list[str]]:
    """Every cell that is checked by tests, with the tests' names."""
    checked: dict[Cell, list[str]] = {}
    for path in sorted(table.folder.glob("test_*.py")):
        module = importlib.import_module(f"{table.package}.{path.stem}")
        for name, feature in _marked_tests(module):
            for client in module.CLIENTS:
                checked.setdefault((client.title, feature), []).append(f"{path.stem}::{name}")
    return checked


def _marked_tests(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in vars(module).items():
        for mark in getattr(value, "pytestmark", []) if name.startswith("test_") else []:
            if mark.name == "shows":
                yield name, mark.args[0]


def render(table: Table, cells: Mapping[Cell, str]) -> str:
    """The table and the reasons below it. cells holds WORKS or FAILS; the rest is `-` with a number and a reason."""
    reasons: list[str] = []
    lines = [_row([table.heading, *table.features.values()]), _row(["---"] * (len(table.features) + 1))]
    for client in table.rows:
        texts = [
            cells.get((client.title, feature)) or _reason_mark(client, feature, reasons) for feature in table.features
        ]
        lines.append(_row([client.title, *texts]))
    lines.append("")
    lines += [f"{number}. {reason[0].upper()}{reason[1:]}." for number, reason in enumerate(reasons, start=1)]
    return "\n".join(lines)


def _reason_mark(client: Client, feature: str, reasons: list[str]) -> str:
    reason = client.cannot[feature]
    if reason not in reasons:
        reasons.append(reason)
    return f"- ({reasons.index(reason) + 1})"


def _row(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def write_table(table: Table, cells: Mapping[Cell, str], page: Path = PAGE) -> None:
    """Put the table between its markers. Raises ValueError if the page lacks them."""
    text = page.read_text()
    before, start, rest = text.partition(table.start)
    _, end, after = rest.partition(table.end)
    if not (start and end):
        raise ValueError(f"{page} has no lines {table.start!r} and {table.end!r}")
    page.write_text(f"{before}{start}\n\n{render(table, cells)}\n\n{end}{after}")


def table_of_page(table: Table, page: Path = PAGE) -> str:
    """The table that is in the page now."""
    return page.read_text().partition(table.start)[2].partition(table.end)[0].strip()
