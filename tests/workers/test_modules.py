"""The parts of workers/ that need no Worker: requests, errors, and the page's reader of streams."""

from __future__ import annotations

import subprocess

import pytest

from tests.workers.worker_process import HERE, NODE_BIN, START_DEADLINE_S


@pytest.mark.clients
def test_the_modules_pass_their_own_tests() -> None:
    done = subprocess.run(
        [NODE_BIN / "node", "--test", "modules.test.mjs"],
        cwd=HERE, capture_output=True, text=True, timeout=START_DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# fail 0" in done.stdout or "ℹ fail 0" in done.stdout
