"""The `intaglio` command as a user types it: in the test's own process or, like a user's, in one of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from intaglio.cli import main

DEADLINE_S = 60


@dataclass(frozen=True, slots=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


def run_here(patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> Ended:
    """In this process, which spares the start of one."""
    patch.setattr(sys, "argv", ["intaglio", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    return Ended(int(ended.value.code or 0), shown.out, shown.err)


def run_apart(*words: str) -> Ended:
    """In a process of its own, with this one's environment."""
    command = [sys.executable, "-m", "intaglio.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)
