"""The kernels for ARM, built with a cross compiler and run in an emulator: neither a Mac nor a Graviton is at hand.

On Debian: `apt-get install g++-aarch64-linux-gnu qemu-user`. The flags are those of CMakeLists.txt.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
CSRC = Path(__file__).parents[2] / "csrc"
FLAGS = {"neon": ["-march=armv8.2-a+dotprod"], "plain": []}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (COMPILER and EMULATOR), reason="needs g++-aarch64-linux-gnu and qemu-user"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aarch64")
    compile_ = [str(COMPILER), "-std=gnu++20", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
    compile_ += ["-I", str(CSRC)]
    objects = []
    for isa, flags in FLAGS.items():
        objects.append(str(folder / f"{isa}.o"))
        source = str(CSRC / "kernels" / "kernels.cpp")
        command = [*compile_, "-Wno-maybe-uninitialized", f"-DISA={isa}", *flags, "-c", source, "-o", objects[-1]]
        subprocess.run(command, check=True)
    sources = [str(CSRC / "runtime" / "dispatch.cpp"), str(Path(__file__).parent / "cross" / "check_kernels.cpp")]
    subprocess.run([*compile_, "-static", *sources, *objects, "-o", str(folder / "check")], check=True)
    return folder / "check"


def emulated(program: Path, cpu: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(EMULATOR), "-cpu", cpu, str(program), "neon"], capture_output=True, text=True, check=False
    )


def test_neon_computes_what_plain_does(program: Path) -> None:
    result = emulated(program, "max")
    assert result.returncode == 0, result.stdout
    assert result.stdout.startswith("neon against plain; best here: neon")
    assert "BAD" not in result.stdout


def test_an_arm_core_without_dot_products_uses_plain(program: Path) -> None:
    """A Raspberry Pi 4 has such a core; the NEON kernels would be an illegal instruction there."""
    result = emulated(program, "cortex-a72")
    assert result.returncode == 2
    assert "neon: not on this machine" in result.stdout
