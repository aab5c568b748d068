"""A whole server as a user starts it: `intaglio serve` in a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from intaglio.settings import PREFIX
from tests.helpers.kernels import KERNELS_VARIABLE

START_DEADLINE_S = 90
STOP_DEADLINE_S = 20
LINE_DEADLINE_S = 60
_READY = r"^Intaglio is ready: .* at (http://\S+)"


class ServerLog:
    """What a server has printed so far. A thread reads its output, so that the server never waits for a reader."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._text = ""
        self._ended = False
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def text(self) -> str:
        return self._text

    def wait_for(self, pattern: str, deadline_s: float = LINE_DEADLINE_S) -> re.Match[str]:
        """Wait for the first match. Raises RuntimeError with the whole output if there is none by the deadline."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self._text, re.MULTILINE)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, deadline_s)
            match = found()
        if match is None:
            raise RuntimeError(
                f"the server {'ended' if self._ended else 'is running'} and printed no {pattern!r}:\n{self._text}"
            )
        return match

    def wait_for_end(self, deadline_s: float = LINE_DEADLINE_S) -> None:
        """Wait until the server has ended and all of its output is read."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended, deadline_s), (
                f"the server is still running:\n{self._text}"
            )

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._text += line
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class LiveServer:
    """url has no trailing slash; pid is the API process."""

    url: str
    pid: int
    data_dir: Path
    log: ServerLog

    def account(self, name: str = "local") -> str:
        return f"{self.url}/client/v4/accounts/{name}"


@contextlib.contextmanager
def serve(arguments: Sequence[str], data_dir: Path, deadline_s: float = START_DEADLINE_S) -> Iterator[LiveServer]:
    """Start a server and stop it again. Raises RuntimeError with its output if it does not become ready."""
    command = [sys.executable, "-m", "intaglio.cli", "serve", "--port", "0", "--data-dir", str(data_dir), *arguments]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(),
        start_new_session=True,
    ) as process:
        log = ServerLog(process)
        try:
            url = log.wait_for(_READY, deadline_s)[1].replace("localhost", "127.0.0.1")
            yield LiveServer(url, process.pid, data_dir, log)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _environment() -> dict[str, str]:
    """This process's environment without settings, except the kernels that the tests were asked to use."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(PREFIX) or name == KERNELS_VARIABLE
    }
