"""Check that every file of csrc/ compiles without a warning, for every instruction set. No code is generated.

    python scripts/lint_csrc.py

The commands are those of the last build: CMake writes them into build/<wheel tag>/compile_commands.json.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECK = ["-fsyntax-only", "-Werror"]


def commands() -> list[tuple[str, list[str]]]:
    """The folder and the command of each compilation of a file of csrc/."""
    # Not build/newest, whose headers were in a folder that is gone after the build.
    found = sorted(ROOT.glob("build/cp*-*/compile_commands.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        sys.exit("build/<wheel tag>/compile_commands.json is missing: run `make setup` first")
    entries = json.loads(found[-1].read_text())
    return [
        (entry["directory"], [*shlex.split(entry["command"]), *CHECK])
        for entry in entries
        if Path(entry["file"]).is_relative_to(ROOT / "csrc")
    ]


def compiles(compilation: tuple[str, list[str]]) -> bool:
    folder, command = compilation
    return subprocess.run(command, cwd=folder, check=False).returncode == 0


def main() -> None:
    with ThreadPoolExecutor(2) as pool:
        good = list(pool.map(compiles, commands()))
    if not good or not all(good):
        sys.exit(1)
    print(f"{len(good)} compilations of csrc/ without a warning")


if __name__ == "__main__":
    main()
