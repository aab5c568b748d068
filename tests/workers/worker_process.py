"""Runs a Worker in wrangler, miniflare or workerd: a process group of its own, ready when its output says so."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.servers import ServerLog

HERE = Path(__file__).parent
NODE_BIN = HERE.parents[1] / ".venv-clients" / "node" / "bin"
PROGRAMS = HERE / "node_modules" / ".bin"
START_DEADLINE_S = 90
STOP_DEADLINE_S = 20


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """url has no trailing slash."""

    url: str
    log: ServerLog


@contextlib.contextmanager
def running(command: Sequence[str | Path], address: str, home: Path) -> Iterator[RunningWorker]:
    """Start a command and stop it with all that it started. Raises RuntimeError with its output if it is not ready.

    address  pattern of the line that says it listens; its first group is a port or a URL
    home     an empty folder: no configuration and no login of the user's counts
    """
    program = HERE / command[0]
    assert program.exists(), f"{program} is missing: `make test-clients` installs it"
    with subprocess.Popen(
        [program, *command[1:]], cwd=HERE, env=_environment(home), text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        log = ServerLog(process)
        try:
            found = log.wait_for(address, START_DEADLINE_S)[1]
            port = found.rstrip("/").rpartition(":")[2]
            yield RunningWorker(f"http://127.0.0.1:{port}", log)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """The group is the process and its children, workerd among them; it may be gone already."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_DEADLINE_S)


def _environment(home: Path) -> dict[str, str]:
    """No network beyond this machine is needed or tried: nothing listens at the proxy for https."""
    return {
        "PATH": f"{PROGRAMS}:{NODE_BIN}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "LANG": "C.UTF-8",
        "CI": "true",  # no questions
        "WRANGLER_SEND_METRICS": "false",
        "WRANGLER_HIDE_BANNER": "true",  # nor a look for a newer version
        "WRANGLER_LOG_PATH": str(home / "logs"),
        "CLOUDFLARE_CF_FETCH_ENABLED": "false",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
