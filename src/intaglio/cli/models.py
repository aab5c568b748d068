"""`intaglio models`: what a running server lists."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from intaglio.cli.adapter_tables import table_console
from intaglio.cli.adapters import Account, Token, Url, client_settings
from intaglio.cli.json_output import AsJson, print_json
from intaglio.client import Connection

_PAGE = 1000  # models asked for at once; a server has a few dozen


def models(url: Url = None, account: Account = None, token: Token = None, as_json: AsJson = False) -> None:
    """List the models of a running server: those it serves, and those that it knows and has no weights for.

    Example: intaglio models --url localhost:8080
    """
    settings = client_settings(url, account, token)
    with Connection(settings.url, settings.account, settings.token) as connection:
        found = connection.get("models/search", per_page=_PAGE)
    if as_json:
        print_json(found)
        return
    table = Table("model", "served", "window", "description", box=box.SIMPLE_HEAD)
    for model in sorted(found, key=lambda one: (_property(one, "without_weights") == "true", one["name"])):
        table.add_row(model["name"], _served(model), _property(model, "context_window"), model["description"])
    table_console().print(table)


def _served(model: dict[str, Any]) -> str:
    stand_in = _property(model, "stand_in")
    if stand_in:
        return f"by {stand_in}"
    return "no weights" if _property(model, "without_weights") == "true" else "yes"


def _property(model: dict[str, Any], name: str) -> str:
    return next((one["value"] for one in model["properties"] if one["property_id"] == name), "")
