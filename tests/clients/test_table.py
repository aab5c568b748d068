"""docs/clients.md and the clients' tests agree. These tests run in the default suite and need no client."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.clients.clients import CLIENTS, CURL, HERE, NODE_FOLDERS, ROOT, Client
from tests.clients.table import CLIENT_TABLE, PAGE, TABLES, WORKS, Table, checked_cells, render, table_of_page
from tests.clients.tools.tools import TOOLS

LINE = re.compile(
    r"^\| (?P<name>\S[^|]*?) \| (?P<set>[^|]*) \| .*\]\(\.\./(?P<example>tests/clients/[^)]*)\) \|$", re.MULTILINE
)


each_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


@each_table
def test_each_cell_has_a_test_or_a_reason_and_not_both(table: Table) -> None:
    checked = checked_cells(table)
    wrong = [
        (client.title, feature)
        for client in table.rows
        for feature in table.features
        if ((client.title, feature) in checked) == (feature in client.cannot)
    ]
    assert wrong == []


@each_table
def test_every_tested_client_has_a_row(table: Table) -> None:
    assert {title for title, _ in checked_cells(table)} == {client.title for client in table.rows}


@each_table
def test_the_table_of_the_page_is_what_the_tests_show(table: Table) -> None:
    written = render(table, dict.fromkeys(checked_cells(table), WORKS))
    assert table_of_page(table) == written, f"run `make {table.name}-table`"


def test_a_cell_that_failed_is_not_written_as_a_success() -> None:
    cells = dict.fromkeys(checked_cells(CLIENT_TABLE), WORKS)
    cells[CURL.title, "chat"] = "**no**"
    lines = render(CLIENT_TABLE, cells).splitlines()
    (row,) = [line for line in lines if line.startswith(f"| {CURL.title} |")]
    assert row.split(" | ")[1:4] == ["yes", "**no**", "yes"]


@pytest.mark.parametrize("row", CLIENTS + TOOLS, ids=lambda client: client.title)
def test_each_client_has_a_line_whose_words_are_in_its_example(row: Client) -> None:
    example = row.folder / row.script
    (line,) = [found for found in LINE.finditer(PAGE.read_text()) if found["example"].endswith(f"/{row.script}")]
    assert row.name.split(",")[0] == line["name"]
    text = example.read_text()
    words = re.findall(r"`([^`]+)`", line["set"])
    assert [word for word in words if word not in text] == []
    assert ROOT / line["example"] == example


def test_python_pins_are_exact() -> None:
    for path in (HERE / "requirements").glob("*.in"):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert [
            line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][A-Za-z0-9.]*", line)
        ] == [], path


@pytest.mark.parametrize("folder", [*NODE_FOLDERS.values(), ROOT / "tests" / "workers"], ids=lambda folder: folder.name)
def test_javascript_pins_are_exact_and_locked_without_a_registrys_name(folder: Path) -> None:
    package = json.loads((folder / "package.json").read_text())
    lock = json.loads((folder / "package-lock.json").read_text())
    pins = package.get("dependencies", {}) | package.get("devDependencies", {})
    assert [pin for pin in pins.values() if not re.fullmatch(r"\d+\.\d+\.\d+(-\w+)?", pin)] == []
    assert {name: lock["packages"][f"node_modules/{name}"]["version"] for name in pins} == pins
    assert [name for name, entry in lock["packages"].items() if "resolved" in entry] == []
