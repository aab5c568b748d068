"""Runs a measured engine in a process of its own, which gets one workload at a time over standard input and output.

While another engine is measured, the process group is stopped (SIGSTOP), so that spinning threads or polling loops of
one engine cannot slow the other.

Standard library only: every peer imports this file in an environment of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.workloads import BY_NAME, Model, Workload

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of a workload, in tokens per second; None if the engine does not report the figure.

    decode   all streams together, after the first token of each
    prefill  prompt tokens of all streams until the first token of each
    output   output tokens over the whole time
    """

    decode: float | None = None
    prefill: float | None = None
    output: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """The engine that a worker opens.

    home  folder of peers, models and adapters; see `models.Home`
    """

    home: str
    model: Model
    threads: int


class Runner(Protocol):
    """An opened engine."""

    def run(self, workload: Workload, repeat: int) -> Sample: ...

    def close(self) -> None: ...


class WorkerError(RuntimeError):
    """The measured process ended or reported a failure; the message is its own."""


class Worker:
    """A worker process, from the side of its parent. The process is stopped except during `run`."""

    def __init__(self, python: Path, module: str, job: Job) -> None:
        command = [str(python), "-m", module, json.dumps(asdict(job))]
        log_dir = Path(job.home) / "logs"
        log_dir.mkdir(parents=True, exist_ok=True)
        self.log = log_dir / f"{module.rpartition('.')[2]}-{job.model}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        self._read_reply()  # when the engine is open
        self._signal(signal.SIGSTOP)

    def run(self, workload: Workload, repeat: int) -> Sample:
        self._signal(signal.SIGCONT)
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{json.dumps([workload.name, repeat])}\n".encode())
            self._process.stdin.flush()
            return Sample(**self._read_reply())
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End the process and everything it started."""
        self._signal(signal.SIGCONT)
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _read_reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            tail = self.log.read_text(errors="replace")[-2000:]
            raise WorkerError(f"{self.log} ends with:\n{tail}")
        reply: dict[str, Any] = json.loads(line)
        return reply


def serve(open_runner: Callable[[Job], Runner]) -> None:
    """The worker's main loop. Output of libraries goes to the log."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    runner = open_runner(Job(**json.loads(sys.argv[1])))
    print("{}", file=replies, flush=True)
    try:
        for line in sys.stdin:
            name, repeat = json.loads(line)
            print(json.dumps(asdict(runner.run(BY_NAME[name], repeat))), file=replies, flush=True)
    finally:
        runner.close()
