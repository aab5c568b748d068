"""A whole server as a user starts it: `intaglio serve` in a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

START_DEADLINE_S = 90
_READY = "Intaglio is ready: "


@dataclass(frozen=True, slots=True)
class LiveServer:
    """url has no trailing slash; pid is the API process."""

    url: str
    pid: int

    def account(self, name: str = "local") -> str:
        return f"{self.url}/client/v4/accounts/{name}"


@contextlib.contextmanager
def serve(arguments: Sequence[str], data_dir: Path) -> Iterator[LiveServer]:
    """Start a server and stop it again. Raises RuntimeError with its output if it does not become ready."""
    command = [sys.executable, "-m", "intaglio.cli", "serve", "--port", "0", "--data-dir", str(data_dir), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment()
    ) as process:
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_pump, args=(process, lines), daemon=True).start()
        try:
            yield LiveServer(_wait_until_ready(lines), process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("INTAGLIO_")}


def _pump(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _wait_until_ready(lines: queue.Queue[str | None]) -> str:
    said = []
    while True:
        line = lines.get(timeout=START_DEADLINE_S)
        if line is None:
            raise RuntimeError("the server ended:\n" + "".join(said))
        said.append(line)
        if line.startswith(_READY):
            return line.split(" at ")[1].split(" ")[0].replace("localhost", "127.0.0.1")
