"""Runs the `intaglio` command, in the test's own process or in a new one, and other programs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from intaglio.cli import main

DEADLINE_S = 60


@dataclass(frozen=True, slots=True)
class CommandResult:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


def run_in_process(patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> CommandResult:
    """Run the command in this process, which is faster than starting one."""
    patch.setattr(sys, "argv", ["intaglio", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return CommandResult(int(ended.value.code or 0), printed.out, printed.err)


def run_in_subprocess(*words: str, stdin: str = "") -> CommandResult:
    """Run the command in a new process, with this one's environment."""
    command = [sys.executable, "-m", "intaglio.cli", *words]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return CommandResult(done.returncode, done.stdout, done.stderr)


def output_of(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
    deadline_s: float = 120.0,
) -> str:
    """Standard output of a program. A failure shows what it printed.

    folder, environment  None: those of this process
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{stdin}\n{done.stdout}\n{done.stderr}"
    return done.stdout
