"""Includes of csrc/ run one way: python -> runtime -> the kernels' interface. A failure names the offending line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
INTERFACE = "kernels/kernels.h"  # all that the other folders see of the kernels
MAY_INCLUDE = {
    "kernels": ("kernels/",),
    "runtime": ("runtime/", INTERFACE),
    "python": ("python/", "runtime/", INTERFACE),
}
PYTHON_HEADERS = ("nanobind/", "Python.h")


def wrong_includes(csrc: Path) -> list[str]:
    wrong = []
    for path in sorted([*csrc.rglob("*.h"), *csrc.rglob("*.cpp")]):
        inside = path.relative_to(csrc)
        folder = inside.parts[0]
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            own = re.match(r'#include "(.*)"', line)
            system = re.match(r"#include <(.*)>", line)
            if own and not own[1].startswith(MAY_INCLUDE.get(folder, ())):
                wrong.append(f"csrc/{inside}:{number}: {folder} may not include {own[1]}")
            if system and system[1].startswith(PYTHON_HEADERS) and folder != "python":
                wrong.append(f"csrc/{inside}:{number}: only csrc/python knows Python")
    return wrong


def test_includes_run_one_way() -> None:
    assert {path.name for path in CSRC.iterdir()} == set(MAY_INCLUDE)
    assert wrong_includes(CSRC) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("kernels/matmul.h", '#include "runtime/jobs.h"'),
        ("runtime/jobs.h", '#include "kernels/simd.h"'),
        ("runtime/plans.h", '#include "python/arrays.h"'),
        ("runtime/device.h", "#include <nanobind/ndarray.h>"),
        ("python/bindings.cpp", '#include "kernels/lora.h"'),
    ],
)
def test_the_check_notices_a_wrong_include(path: str, line: str, tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_text(f"#pragma once\n{line}\n")
    (found,) = wrong_includes(tmp_path)
    assert found.startswith(f"csrc/{path}:2: ")
