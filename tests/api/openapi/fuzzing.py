"""Runs schemathesis as its users do: `st run` on the document of a live server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

ALL_PHASES = "examples,coverage,fuzzing,stateful"
DRAWN_PHASES = "examples,fuzzing,stateful"


def fuzz(url: str, folder: Path, *, phases: str = ALL_PHASES, max_examples: int, deadline_s: float) -> None:
    """Ask every operation in every way. Raises AssertionError with schemathesis's report, curl lines and all.

    folder  where it may leave files
    phases  coverage tries every bound of every field in turn; fuzzing draws at random; stateful makes stories of them
    """
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{url}/openapi.json", "--phases", phases, "--max-examples", str(max_examples), "--no-color"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "*"}
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=deadline_s, check=False
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
