"""One live server with the real 270M model and an uploaded adapter, and its responses over plain HTTP.

Every test here has the marker `clients`, those of the folder `tools` the marker `tools`. A test module names its
CLIENTS; its tests run for each of them. A client's example script runs once, and the tests check what its functions
returned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from intaglio.model.bundled import bundled_model_path
from intaglio.model.loader import read_config
from intaglio.model.weights import open_checkpoint
from intaglio.settings import DEFAULT_MODEL_ID, Settings
from tests.clients.clients import HERE, Client
from tests.clients.script_runner import Outcomes, run_script
from tests.clients.table import FAILS, TABLES, TOOL_TABLE, WORKS, Cell, checked_cells, write_table
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.servers import LiveServer, serve

ANSWER_DEADLINE_S = 60.0
TEST_TIMEOUT_S = 300
ACCOUNT = "clients"
MODEL = DEFAULT_MODEL_ID
ADAPTER = "uploaded-over-http"
DEMO_ADAPTER = "intaglio-triage"
FILES = ("adapter_config.json", "adapter_model.safetensors")
PROMPT = "The capital of France is"
QUESTION = "My order came broken and nobody answers the phone. I want my money back."
CATEGORIES = ["billing", "shipping", "returns", "other"]
SCHEMA = {
    "type": "object",
    "properties": {"category": {"type": "string", "enum": CATEGORIES}, "urgent": {"type": "boolean"}},
    "required": ["category", "urgent"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "open_ticket",
        "description": "Open a ticket for a complaint.",
        "parameters": {
            "type": "object",
            "properties": {"team": {"type": "string", "description": "who takes it", "enum": CATEGORIES}},
            "required": ["team"],
        },
    },
}
RESULTS: pytest.StashKey[dict[Cell, str]] = pytest.StashKey()

Plain = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serve([], tmp_path_factory.mktemp("data")) as server:
        yield server
        assert "Traceback" not in server.log.text, server.log.text


@pytest.fixture(scope="session")
def http(live_server: LiveServer) -> Iterator[httpx.Client]:
    """A client whose paths are relative to the account's `/ai`."""
    with httpx.Client(base_url=f"{live_server.account(ACCOUNT)}/ai", timeout=ANSWER_DEADLINE_S) as client:
        yield client


@pytest.fixture(scope="session")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that clearly changes the bundled model's completions."""
    with open_checkpoint(bundled_model_path(Settings().cache_path)) as checkpoint:
        config = read_config(checkpoint)
    folder = tmp_path_factory.mktemp("adapter")
    return write_peft_adapter(folder, config, rank=4, seed=1, dtype="bfloat16", model_type="gemma")


@pytest.fixture(scope="session")
def adapter(http: httpx.Client, adapter_folder: Path) -> str:
    """The name of that adapter, after an upload over plain HTTP."""
    http.post("/finetunes", json={"model": MODEL, "name": ADAPTER}).raise_for_status()
    for name in FILES:
        parts = {"file_name": (None, name), "file": (name, (adapter_folder / name).read_bytes())}
        http.post(f"/finetunes/{ADAPTER}/finetune-assets", files=parts).raise_for_status()
    return ADAPTER


@pytest.fixture(scope="session")
def plain(http: httpx.Client, adapter: str) -> Plain:
    """The result of a greedy run over plain HTTP, to compare clients with. Each is requested once for all clients."""
    kept: dict[str, dict[str, Any]] = {}

    def run(**body: Any) -> dict[str, Any]:
        content = json.dumps({"temperature": 0, "max_tokens": 12, **body})
        if content not in kept:
            response = http.post(f"/run/{MODEL}", content=content)
            assert response.status_code == 200, response.text
            kept[content] = response.json()["result"]
        return kept[content]

    return run


@pytest.fixture(scope="session")
def outcomes(
    live_server: LiveServer, adapter: str, adapter_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Client], Outcomes]:
    """The outcomes of a client's example script. Each script runs once."""
    kept: dict[str, Outcomes] = {}
    variables = {
        "BASE_URL": f"{live_server.url}/client/v4",
        "ACCOUNT": ACCOUNT,
        "MODEL": MODEL,
        "ADAPTER": adapter,
        "ADAPTER_FOLDER": str(adapter_folder),
        "DEMO_ADAPTER": DEMO_ADAPTER,
        "PROMPT": PROMPT,
        "QUESTION": QUESTION,
        "SCHEMA": json.dumps(SCHEMA),
        "TOOL": json.dumps(TOOL),
    }

    def get(client: Client) -> Outcomes:
        if client.title not in kept:
            new = "by-" + "".join(char if char.isalnum() else "-" for char in client.title).strip("-")
            home = tmp_path_factory.mktemp("home")
            kept[client.title] = run_script(client, {**variables, "NEW_ADAPTER": new}, home)
        return kept[client.title]

    return get


@pytest.fixture
def shown(client: Client, outcomes: Callable[[Client], Outcomes]) -> Outcomes:
    """The outcomes of the script of this test's client."""
    return outcomes(client)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-table",
        action="store_true",
        help="write the table of what ran into docs/clients.md",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "client" in metafunc.fixturenames:
        metafunc.parametrize("client", metafunc.module.CLIENTS, ids=lambda client: client.title, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and item.path.name != "test_table.py":
            item.add_marker(pytest.mark.tools if item.path.parent == TOOL_TABLE.folder else pytest.mark.clients)
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))  # the first one of a client waits for its whole script


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    mark = item.get_closest_marker("shows")
    if mark is not None and (call.when == "call" or report.failed):
        cell = (item.callspec.params["client"].title, mark.args[0])  # type: ignore[attr-defined]
        results = item.config.stash[RESULTS]
        results[cell] = FAILS if report.failed else results.get(cell, WORKS)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--write-table", default=False):
        return
    results = session.config.stash[RESULTS]
    for table in TABLES:
        missing = sorted(set(checked_cells(table)) - results.keys())
        if not missing:
            write_table(table, results)
        elif any(client.title == title for client in table.rows for title, _ in results):
            raise pytest.UsageError(
                f"the table is not written: no test was run for {missing[0]} and {len(missing) - 1} more"
            )
