"""The whole server as a user starts it: `intaglio serve` with the bundled model, in its own process, on a free port."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloudflare import Cloudflare

from intaglio.model.bundled import bundled_model_path
from intaglio.model.config import ModelConfig
from intaglio.model.loader import read_config
from intaglio.model.weights import open_checkpoint
from intaglio.settings import DEFAULT_MODEL_ID, Settings
from tests.helpers.adapters import write_peft_adapter

START_DEADLINE_S = 90.0
ANSWER_DEADLINE_S = 60.0
MODEL = DEFAULT_MODEL_ID
ACCOUNT = "/client/v4/accounts/acc0"
RUN = f"{ACCOUNT}/ai/run/{MODEL}"


class Server:
    """A running `intaglio serve`: its address, its data folder, its output so far."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        command = [sys.executable, "-m", "intaglio.cli", "serve", "--port", "0", "--data-dir", str(data_dir), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        ready = self.wait_for(r"Intaglio is ready: .* at (http://\S+?):(\d+)", START_DEADLINE_S)
        self.address = f"http://127.0.0.1:{ready[2]}"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def wait_for(self, pattern: str, deadline_s: float = ANSWER_DEADLINE_S) -> re.Match[str]:
        """The first match of a pattern in the server's output, when it is there."""

        def match() -> re.Match[str] | None:
            return re.search(pattern, self.output)

        with self._news:
            found = self._news.wait_for(match, deadline_s)
        assert found, f"no {pattern!r} within {deadline_s} s in:\n{self.output}"
        return found

    def stop(self) -> int:
        """Interrupt the server as Ctrl-C does; its exit status."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(START_DEADLINE_S)
        self._reader.join(START_DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("data"), "--max-body-bytes", "1000000")
    yield server
    assert server.stop() == 0, server.output
    assert "Traceback" not in server.output


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.address, timeout=ANSWER_DEADLINE_S) as client:
        yield client


@pytest.fixture(scope="session")
def cloudflare(server: Server) -> Iterator[Cloudflare]:
    with Cloudflare(api_token="any", base_url=f"{server.address}/client/v4", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def base_config() -> ModelConfig:
    """The shape of the bundled model."""
    with open_checkpoint(bundled_model_path(Settings().cache_path)) as checkpoint:
        return read_config(checkpoint)


@pytest.fixture(scope="session")
def adapter_folders(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters of different rank and targets that change the bundled model's answers beyond doubt."""
    folder = tmp_path_factory.mktemp("adapters")
    return [
        write_peft_adapter(folder / "one", base_config, rank=4, seed=1, dtype="bfloat16", model_type="gemma"),
        write_peft_adapter(folder / "two", base_config, rank=3, seed=2, targets=["q_proj", "down_proj"]),
    ]


def answer(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """The result of a run that must succeed."""
    response = client.post(RUN, json=body)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()["result"]
    return content
