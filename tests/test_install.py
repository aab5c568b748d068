"""What `pip install` says where the kernels cannot be compiled. It fetches the tools of the build, like any install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "NOTICE", "csrc", "src/intaglio/version.py")
DEADLINE_S = 110

# Takes C++20 for C++17, as a compiler does that knows no better.
OLD_COMPILER = """#!/bin/sh
for word do
  shift
  case $word in -std=*20 | -std=*2a) word=-std=gnu++17 ;; esac
  set -- "$@" "$word"
done
exec c++ "$@"
"""

pytestmark = pytest.mark.slow


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`pip wheel` of a copy of the sources: a build folder of the developer's has a compiler in its cache."""
    source = folder / "source"
    for name in NEEDED:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)]
    variables = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")} | environment
    return subprocess.run(
        command,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def assert_says_what_to_install(done: subprocess.CompletedProcess[str]) -> None:
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "Intaglio's CPU kernels need a C++20 compiler" in said
    assert "sudo apt-get install g++" in said


def test_without_a_compiler_the_error_says_what_to_install(tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    done = build(tmp_path, PATH=str(empty))
    assert_says_what_to_install(done)
    assert "None was found here." in done.stdout


def test_a_compiler_that_is_named_but_not_there_counts_as_none(tmp_path: Path) -> None:
    done = build(tmp_path, CXX=str(tmp_path / "nowhere" / "g++"))
    assert_says_what_to_install(done)
    assert "None was found here." in done.stdout


def test_a_compiler_that_does_not_know_cpp20_is_named(tmp_path: Path) -> None:
    old = tmp_path / "old-c++"
    old.write_text(OLD_COMPILER)
    old.chmod(0o755)
    done = build(tmp_path, CXX=str(old))
    assert_says_what_to_install(done)
    assert f"Found: {old}" in " ".join(done.stdout.split())
    assert "too old" in done.stdout
