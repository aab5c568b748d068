from __future__ import annotations

import re
from pathlib import Path

import pytest

from intaglio.api.http.errors import WIRE_ERRORS
from intaglio.api.inference.schema import RunSchema
from intaglio.finetunes import FinetuneState

PAGE = (Path(__file__).parents[3] / "docs" / "http_api.md").read_text()
ROUTE = re.compile(r"@(?:router|api)\.(?:get|post|put|delete)\(\"(/[^\"]*)\"")
API = Path(__file__).parents[3] / "src" / "intaglio" / "api"


@pytest.mark.parametrize("row", sorted({(row.code, row.status) for row in WIRE_ERRORS.values()}))
def test_every_error_code_is_documented_with_its_status(row: tuple[int, int]) -> None:
    assert f"| {row[0]} | {row[1]} |" in PAGE


def test_the_documented_error_codes_are_those_of_the_table() -> None:
    documented = set(re.findall(r"^\| (\d{4,5}) \| (\d{3}) \|", PAGE, re.MULTILINE))
    assert documented == {(str(row.code), str(row.status)) for row in WIRE_ERRORS.values()}


def test_every_route_is_documented() -> None:
    routes = {re.sub(r":path}", "}", route) for path in API.rglob("*.py") for route in ROUTE.findall(path.read_text())}
    assert len(routes) >= 14
    assert [route for route in sorted(routes) if route not in PAGE] == []


def test_every_field_and_state_is_documented() -> None:
    fields = {name for form in RunSchema().input["oneOf"] for name in form["properties"]}
    assert [name for name in sorted(fields) if f"`{name}`" not in PAGE] == []
    assert [state.value for state in FinetuneState if f"`{state.value}`" not in PAGE] == []
