"""The engine takes all the descriptors it may have, and says when they are few for its adapters."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

FEW, MANY = 10_000_000, 1 << 30  # bytes of a cache: 14 small adapters, and about 1,500


def allowed(soft: int, hard: int, cache_bytes: int) -> tuple[list[int], str]:
    """What a process that may open so many files makes of it: its limits afterwards, and what it logs."""
    code = (
        "import logging, resource; from intaglio.engine.open_files import allow_open_files\n"
        f"logging.basicConfig(); limit = allow_open_files({cache_bytes})\n"
        "print(limit, *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )
    return [int(word) for word in run.stdout.split()], run.stderr


def test_the_limit_becomes_the_highest_that_the_process_may_have() -> None:
    assert allowed(200, 300, FEW) == ([300, 300, 300], "")


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="maps hold no descriptors there")
def test_a_highest_limit_that_is_small_for_the_cache_is_said_with_both_numbers() -> None:
    limits, said = allowed(200, 300, MANY)
    assert limits == [300, 300, 300]
    assert "may open 300 files, and adapter_cache_bytes holds about 1533 small adapters" in said
