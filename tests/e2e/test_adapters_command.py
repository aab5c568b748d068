"""`intaglio adapters` against the real server and model: published, proven, used, rolled back, downloaded, deleted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from intaglio.cli import main
from tests.e2e.conftest import ACCOUNT, answer
from tests.helpers.servers import LiveServer

DEADLINE_S = 60
FILES = ("adapter_config.json", "adapter_model.safetensors")
GREEDY: dict[str, Any] = {"prompt": "The harbour was quiet in", "raw": True, "temperature": 0, "max_tokens": 6}


@dataclass(frozen=True, slots=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


class Intaglio:
    """The command `intaglio adapters`, in this process or, as a user runs it, in one of its own."""

    def __init__(self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capsys = capsys

    def __call__(self, *words: str) -> Ended:
        self._patch.setattr(sys, "argv", ["intaglio", "adapters", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = self._capsys.readouterr()
        return Ended(int(ended.value.code or 0), shown.out, shown.err)

    def apart(self, *words: str) -> Ended:
        command = [sys.executable, "-m", "intaglio.cli", "adapters", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def intaglio(live_server: LiveServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Intaglio:
    for name in [name for name in os.environ if name.startswith("INTAGLIO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("INTAGLIO_URL", live_server.url)
    monkeypatch.setenv("INTAGLIO_ACCOUNT", "acc0")
    return Intaglio(monkeypatch, capsys)


def test_the_life_of_an_adapter(
    intaglio: Intaglio, http: httpx.Client, adapter_folders: list[Path], tmp_path: Path
) -> None:
    first = intaglio.apart(
        "upload", str(adapter_folders[0]), "--name", "by-command", "--description", "made up", "--json"
    )
    assert (first.returncode, first.stderr) == (0, "")
    made = json.loads(first.stdout)
    proof = made["proof"]
    assert (made["state"], made["generation"], proof["verdict"], proof["rank"]) == ("ready", 1, "proven", 4)
    assert proof["modules"] > 0
    assert proof["largest_logit_change"] >= proof["mean_logit_change"] > 0
    assert 0.5 < proof["agreement"] <= 1
    assert http.get(f"{ACCOUNT}/ai/finetunes/by-command").json()["result"] == made
    old = answer(http, **GREEDY, lora="by-command")["response"]

    second = intaglio("upload", str(adapter_folders[1]), "--name", "by-command")
    assert "proven in " in second.stdout
    new = answer(http, **GREEDY, lora="by-command")["response"]
    assert new != old
    back = json.loads(intaglio("rollback", "by-command", "--json").stdout)
    assert (back["digest"], back["proof"]) == (made["digest"], proof)
    assert answer(http, **GREEDY, lora="by-command")["response"] == old

    assert intaglio("download", "by-command", "--out", str(tmp_path / "back")).returncode == 0
    for name in FILES:
        assert (tmp_path / "back" / name).read_bytes() == (adapter_folders[0] / name).read_bytes()
    assert "by-command" in intaglio("list").stdout
    assert intaglio("delete", "by-command").stdout.startswith("deleted by-command (")
    gone = intaglio.apart("show", "by-command")
    assert (gone.returncode, gone.stdout, gone.stderr.count("\n")) == (1, "", 1)
    assert gone.stderr.startswith("intaglio: Finetune by-command not found")


@pytest.mark.slow
def test_a_folder_is_proven_without_a_server_as_the_server_proves_it(
    intaglio: Intaglio, adapter_folders: list[Path]
) -> None:
    sent = json.loads(intaglio("upload", str(adapter_folders[0]), "--name", "checked", "--json").stdout)
    checked = intaglio.apart("check", str(adapter_folders[0]), "--json")
    assert checked.returncode == 0, checked.stderr
    alone = json.loads(checked.stdout)
    assert alone["digest"] == sent["digest"]
    told = set(sent["proof"]) - {"seconds"}
    assert {name: alone[name] for name in told} == {name: sent["proof"][name] for name in told}
    assert intaglio("delete", "checked").returncode == 0
