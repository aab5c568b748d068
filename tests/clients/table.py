"""The table client x feature of docs/workers_ai.md: which tests check a cell, and how it is written."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.clients.clients import CLIENTS, FEATURES, HERE, ROOT, Client

PAGE = ROOT / "docs" / "workers_ai.md"
START = "<!-- The table is written by `make clients-table`. -->"
END = "<!-- End of the table. -->"
WORKS = "yes"
FAILS = "**no**"

Cell = tuple[str, str]  # (title of the client, feature)


def shows(feature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a test: if it passes, its client has this feature with our server."""
    assert feature in FEATURES, feature
    return pytest.mark.shows(feature)


def checked_cells() -> dict[Cell, list[str]]:
    """Every cell that is checked by tests, with the tests' names."""
    checked: dict[Cell, list[str]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"tests.clients.{path.stem}")
        for name, feature in _marked_tests(module):
            for client in module.CLIENTS:
                checked.setdefault((client.title, feature), []).append(f"{path.stem}::{name}")
    return checked


def _marked_tests(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in vars(module).items():
        for mark in getattr(value, "pytestmark", []) if name.startswith("test_") else []:
            if mark.name == "shows":
                yield name, mark.args[0]


def render(cells: Mapping[Cell, str]) -> str:
    """The table and the reasons below it. cells holds WORKS or FAILS; the rest is `-` with a number and a reason."""
    reasons: list[str] = []
    lines = [_row(["client", *FEATURES.values()]), _row(["---"] * (len(FEATURES) + 1))]
    for client in CLIENTS:
        texts = [cells.get((client.title, feature)) or _reason_mark(client, feature, reasons) for feature in FEATURES]
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


def write_table(table: str, page: Path = PAGE) -> None:
    """Put the table between its markers. Raises ValueError if the page lacks them."""
    text = page.read_text()
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{page} has no lines {START!r} and {END!r}")
    page.write_text(f"{before}{START}\n\n{table}\n\n{END}{after}")


def table_of_page(page: Path = PAGE) -> str:
    """The table that is in the page now."""
    return page.read_text().partition(START)[2].partition(END)[0].strip()
