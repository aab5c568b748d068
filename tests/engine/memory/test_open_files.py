"""The engine raises its limit of open files, and logs when it is too small for the adapters."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from intaglio.engine.client import EngineClient
from tests.engine.test_client import make_spec
from tests.helpers.engines import write_tiny_model

FEW, MANY = 10_000_000, 1 << 30  # bytes of a cache: 14 small adapters, and about 1,500


def allowed(soft: int, hard: int, cache_bytes: int) -> tuple[list[int], str]:
    """What a process that may open so many files makes of it: its limits afterwards, and what it logs."""
    code = (
        "import logging, resource; from intaglio.engine.memory.open_files import raise_open_file_limit\n"
        f"logging.basicConfig(); limit = raise_open_file_limit({cache_bytes})\n"
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
def test_a_hard_limit_too_small_for_the_cache_is_logged_with_both_numbers() -> None:
    limits, said = allowed(200, 300, MANY)
    assert limits == [300, 300, 300]
    assert "may open 300 files, and adapter_cache_bytes holds about 1533 small adapters" in said


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux tells another process's limits")
def test_the_engine_process_raises_its_limit(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))

    async def limits_of_an_engine() -> tuple[int, int]:
        client = await EngineClient.start(make_spec(write_tiny_model(tmp_path / "model")), max_in_flight=1)
        try:
            assert client.pid is not None
            return resource.prlimit(client.pid, resource.RLIMIT_NOFILE)
        finally:
            await client.close()

    assert asyncio.run(limits_of_an_engine()) == (hard, hard)
