"""Small file systems that can be filled to the last page."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a small file system at `path`; the test is skipped where mounting is not allowed."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here (it needs root)")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextmanager
def fill_disk(disk: Path, free_bytes: int) -> Iterator[None]:
    """While the block runs, only `free_bytes` are free on the disk."""
    path = disk / "ballast"
    path.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - free_bytes)))
    try:
        yield
    finally:
        path.unlink()
