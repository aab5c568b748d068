"""`intaglio adapters` against the real server and model, with every command."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import ACCOUNT, run_model
from tests.helpers.commands import CommandResult, run_in_process, run_in_subprocess
from tests.helpers.servers import LiveServer

FILES = ("adapter_config.json", "adapter_model.safetensors")
GREEDY: dict[str, Any] = {"prompt": "The harbour was quiet in", "raw": True, "temperature": 0, "max_tokens": 6}


Intaglio = Callable[..., CommandResult]


@pytest.fixture
def intaglio(live_server: LiveServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Intaglio:
    for name in [name for name in os.environ if name.startswith("INTAGLIO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("INTAGLIO_URL", live_server.url)
    monkeypatch.setenv("INTAGLIO_ACCOUNT", "acc0")
    return lambda *words: run_in_process(monkeypatch, capsys, "adapters", *words)


def test_an_adapter_is_published_verified_used_rolled_back_downloaded_and_deleted(
    intaglio: Intaglio, http: httpx.Client, adapter_folders: list[Path], tmp_path: Path
) -> None:
    first = run_in_subprocess(
        "adapters", "upload", str(adapter_folders[0]), "--name", "by-command", "--description", "made up", "--json"
    )
    assert (first.status, first.err) == (0, "")
    made = json.loads(first.out)
    verification = made["verification"]
    assert (made["state"], made["version"], verification["verdict"], verification["rank"]) == (
        "ready",
        1,
        "verified",
        4,
    )
    assert verification["modules"] > 0
    assert verification["largest_logit_change"] >= verification["mean_logit_change"] > 0
    assert 0.5 < verification["agreement"] <= 1
    assert http.get(f"{ACCOUNT}/ai/finetunes/by-command").json()["result"] == made
    old = run_model(http, **GREEDY, lora="by-command")["response"]

    second = intaglio("upload", str(adapter_folders[1]), "--name", "by-command")
    assert "verified in " in second.out
    new = run_model(http, **GREEDY, lora="by-command")["response"]
    assert new != old
    back = json.loads(intaglio("rollback", "by-command", "--json").out)
    assert (back["digest"], back["verification"]) == (made["digest"], verification)
    assert run_model(http, **GREEDY, lora="by-command")["response"] == old

    assert intaglio("download", "by-command", "--out", str(tmp_path / "back")).status == 0
    for name in FILES:
        assert (tmp_path / "back" / name).read_bytes() == (adapter_folders[0] / name).read_bytes()
    assert "by-command" in intaglio("list").out
    assert intaglio("delete", "by-command").out.startswith("deleted by-command (")
    gone = run_in_subprocess("adapters", "show", "by-command")
    assert (gone.status, gone.out, gone.err.count("\n")) == (1, "", 1)
    assert gone.err.startswith("intaglio: Finetune by-command not found")


@pytest.mark.slow
def test_a_folder_is_verified_without_a_server_as_the_server_verifies_it(
    intaglio: Intaglio, adapter_folders: list[Path]
) -> None:
    sent = json.loads(intaglio("upload", str(adapter_folders[0]), "--name", "checked", "--json").out)
    checked = run_in_subprocess("adapters", "check", str(adapter_folders[0]), "--json")
    assert checked.status == 0, checked.err
    alone = json.loads(checked.out)
    assert alone["digest"] == sent["digest"]
    fields = set(sent["verification"]) - {"seconds"}
    assert {name: alone[name] for name in fields} == {name: sent["verification"][name] for name in fields}
    assert intaglio("delete", "checked").status == 0
