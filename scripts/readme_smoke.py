"""Run the README's commands against a server started as the README says, and check the responses it shows.

    python scripts/readme_smoke.py

Every ```sh block of the README is run. A ```json block right after it is the expected response: each key that it shows
must have that value, and `…` in a string stands for any text. Other blocks are not run. The three commands that the
server prints when it is ready are run too. The data folder is temporary.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
README_PORT = 8080
START_TIMEOUT_S = 600  # the first start may install and download
COMMAND_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30
START_COMMAND = "make serve"
READY_WORDS = "Intaglio is ready"
NUM_PRINTED_COMMANDS = 3  # that the server prints when it is ready
PRINT_TIMEOUT_S = 5


class SmokeError(Exception):
    """A response or the server is not as the README says."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command of the README or of the server, and the response that the README shows for it, or None."""

    command: str
    expected: Any = None


def read_steps(readme: str) -> list[Step]:
    """All sh blocks in order, each with the json block that directly follows it."""
    pattern = r"^```sh\n(?P<command>.*?)^```$(?:\s*^```json\n(?P<response>.*?)^```$)?"
    steps = []
    for block in re.finditer(pattern, readme, re.MULTILINE | re.DOTALL):
        response = block["response"]
        steps.append(Step(block["command"].strip(), json.loads(response) if response else None))
    return steps


def check_response(step: Step, output: str) -> None:
    """Raises SmokeError unless `output` is a successful response to the step, and the expected one."""
    if re.search(r'"stream": *true', step.command):
        _check_stream(output)
        return
    try:
        response = json.loads(output)
    except ValueError as error:
        raise SmokeError(f"not JSON: {output[:300]!r}") from error
    # Responses of the OpenAI routes have no envelope, and commands print the result only.
    has_envelope = step.command.startswith("curl") and "/ai/v1/" not in step.command
    if has_envelope and response.get("success") is not True:
        raise SmokeError(f"no success: {output[:500]}")
    if response.get("result", {}).get("response") == "" and "tool_calls" not in response["result"]:
        raise SmokeError("the response is empty")
    if step.expected is not None:
        _check_shown(step.expected, response, "response")


def _check_stream(output: str) -> None:
    events = [line.removeprefix("data: ") for line in output.splitlines() if line]
    if not events or events[-1] != "[DONE]":
        raise SmokeError(f"the stream does not end with [DONE]: {output[-200:]!r}")
    chunks = [json.loads(event) for event in events[:-1]]
    if not "".join(chunk["response"] for chunk in chunks).strip():
        raise SmokeError("the stream has no text")
    if chunks[-1]["usage"]["completion_tokens"] < 1:
        raise SmokeError(f"no usage on the last chunk: {chunks[-1]}")


def _check_shown(expected: Any, actual: Any, where: str) -> None:
    """Everything that the README shows must be in the response, which may have more."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, value in expected.items():
            if key not in actual:
                raise SmokeError(f"{where} has no {key!r}")
            _check_shown(value, actual[key], f"{where}.{key}")
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
            _check_shown(one, other, f"{where}[{index}]")
    elif isinstance(expected, str) and isinstance(actual, str) and "…" in expected:
        pattern = ".*".join(re.escape(part) for part in expected.split("…"))
        if not re.fullmatch(pattern, actual, re.DOTALL):
            raise SmokeError(f"{where}: the README shows {expected!r}, the server says {actual!r}")
    elif expected != actual:
        raise SmokeError(f"{where}: the README shows {expected!r}, the server says {actual!r}")


def run_command(command: str) -> str:
    """Standard output of a shell command. Raises SmokeError if it fails or takes too long."""
    try:
        done = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SmokeError(f"the command did not end within {COMMAND_TIMEOUT_S} s") from error
    if done.returncode:
        raise SmokeError(f"exit status {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


class Server:
    """The server process and what it has printed so far."""

    def __init__(self, command: str, environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._ready = threading.Event()
        self._announced = threading.Event()
        self._process = subprocess.Popen(
            ["bash", "-c", command], cwd=ROOT, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if READY_WORDS in line:
                self._ready.set()
            if len(self.commands) >= NUM_PRINTED_COMMANDS:
                self._announced.set()
        self._ready.set()  # the process has ended: there is nothing more to wait for
        self._announced.set()

    @property
    def commands(self) -> list[str]:
        """The commands that the server has printed."""
        return [line.strip() for line in self.lines if line.strip().startswith("curl ")]

    def wait_until_ready(self) -> None:
        if not self._ready.wait(START_TIMEOUT_S) or self._process.poll() is not None:
            raise SmokeError("the server did not become ready:\n" + "\n".join(self.lines[-30:]))
        self._announced.wait(PRINT_TIMEOUT_S)

    def stop(self) -> None:
        """Send SIGINT, as Ctrl+C does. Raises SmokeError, after killing the server, if it does not end in time."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise SmokeError(f"the server did not stop within {STOP_TIMEOUT_S} s of Ctrl+C") from error
        finally:
            self._reader.join(STOP_TIMEOUT_S)


@contextmanager
def running_server(command: str) -> Iterator[Server]:
    """Start the server with a temporary data folder, yield it when it is ready, stop it at the end."""
    folder = tempfile.mkdtemp(prefix="intaglio-smoke-")
    server = Server(command, os.environ | {"INTAGLIO_DATA_DIR": folder})
    try:
        server.wait_until_ready()
        yield server
    finally:
        try:
            server.stop()
        finally:
            shutil.rmtree(folder)


def choose_port() -> int:
    """The README's port if it is free, else any free port."""
    for port in (README_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SmokeError("no free port")


def shortened(output: str) -> str:
    """The first and last lines of an output, since a stream has a line for each token."""
    lines = [line for line in output.splitlines() if line]
    return "\n".join(lines if len(lines) <= 6 else [*lines[:3], "…", *lines[-3:]])


def run_step(step: Step) -> bool:
    """Run, check and report one step."""
    print(f"\n$ {step.command}")
    started = time.perf_counter()
    try:
        output = run_command(step.command)
        print(shortened(output))
        check_response(step, output)
    except SmokeError as error:
        print(f"FAILED: {error}")
        return False
    shown = "as the README shows" if step.expected is not None else "a successful response"
    print(f"passed: {shown} ({time.perf_counter() - started:.1f} s)")
    return True


def main() -> int:
    steps = read_steps((ROOT / "README.md").read_text())
    starts = [step for step in steps if step.command.startswith(START_COMMAND)]
    if len(starts) != 1 or len(steps) < 4:
        print(
            f"the README has {len(steps)} sh blocks, {len(starts)} of them `{START_COMMAND}`; wanted: at least 4, and 1"
        )
        return 1
    port = choose_port()
    start = starts[0].command if port == README_PORT else f"{starts[0].command} PORT={port}"
    results = []
    try:
        started = time.perf_counter()
        print(f"$ {start}")
        with running_server(start) as server:
            print("\n".join(server.lines))
            print(f"ready after {time.perf_counter() - started:.1f} s")
            results.append(len(server.commands) == NUM_PRINTED_COMMANDS)
            print(f"it printed {len(server.commands)} commands, {NUM_PRINTED_COMMANDS} are promised")
            results += [run_step(Step(command)) for command in server.commands]
            for step in steps:
                if step is not starts[0]:
                    command = step.command.replace(f"localhost:{README_PORT}", f"localhost:{port}")
                    results.append(run_step(Step(command, step.expected)))
    except SmokeError as error:
        print(f"FAILED: {error}")
        results.append(False)
    print(f"\nREADME: {results.count(True)} passed, {results.count(False)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
