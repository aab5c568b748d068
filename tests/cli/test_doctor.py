from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from intaglio.engine.memory import available
from intaglio.engine.memory.available import AvailableMemory
from tests.helpers.commands import CommandResult, run_in_process

doctor = sys.modules["intaglio.cli.doctor"]  # the package has a function of this name


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.setenv("INTAGLIO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(doctor, "_BUFFER_BYTES", 1 << 20)

    def run(*words: str) -> CommandResult:
        return run_in_process(monkeypatch, capsys, "doctor", *words)

    return run


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_every_finding_has_a_line_and_nothing_is_changed(run: Any, tmp_path: Path) -> None:
    found = run("--port", str(free_port()))
    assert found.status == 0, found.out
    names = [line[3:21].strip() for line in found.out.splitlines() if line.startswith("ok ")]
    assert names == [
        "version", "kernels", "cores", "memory", "fits", "memory bandwidth", "default model", "data folder", "port"
    ]  # fmt: skip
    assert not (tmp_path / "data").exists()


def test_the_findings_come_as_json_too(run: Any) -> None:
    findings = {one["name"]: one for one in run("--port", str(free_port()), "--json").json}
    assert findings["kernels"]["ok"]
    assert findings["memory bandwidth"]["value"].endswith("threads")


def test_a_port_in_use_and_a_folder_that_cannot_be_made_are_faults(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("INTAGLIO_DATA_DIR", str(tmp_path / "file" / "data"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = run("--port", str(port))
    assert found.status == 1
    assert f"NO  port              127.0.0.1 port {port}: " in found.out
    wanted = f"NO  data folder       {tmp_path}/file/data cannot be written; name another one with --data-dir"
    assert wanted in found.out


def test_what_fits_depends_on_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fitting(size_bytes: int) -> str:
        monkeypatch.setattr(available, "available_memory", lambda: AvailableMemory(size_bytes, "a bound"))
        return list(doctor._memory())[1].value

    assert fitting(1 << 20) == "no Gemma"
    small = "270M (w8 or w4), 1B (w8 or w4), 2B (w8 or w4), 4B (w8 or w4)"
    assert fitting(8_000_000_000) == f"Gemma {small}, 7B (w4), 9B (w4); estimated"
    assert "27B (w8 or w4)" in fitting(64_000_000_000)
    monkeypatch.setattr(available, "available_memory", lambda: AvailableMemory(sys.maxsize, "no limit is known"))
    assert [one.value for one in doctor._memory()] == ["no limit is known"]
