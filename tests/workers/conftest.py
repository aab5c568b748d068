"""Two live servers with the real 270M model, one of them with a token, and env.AI in every way that reaches them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from intaglio.model.bundled import bundled_model_path
from intaglio.model.loader import read_config
from intaglio.model.weights import open_checkpoint
from intaglio.settings import DEFAULT_MODEL_ID, Settings
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.servers import LiveServer, serve
from tests.workers.worker_process import NODE_BIN, RunningWorker, running

ANSWER_DEADLINE_S = 60.0
MODEL = DEFAULT_MODEL_ID
ACCOUNT = "workers"
TOKEN = "the-token"
ADAPTER = "mine"
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}

Start = Callable[[LiveServer, Path], AbstractContextManager[RunningWorker]]


@dataclass(frozen=True, slots=True)
class EnvAI:
    """env.AI inside of a Worker, and the server that it reaches."""

    worker: RunningWorker
    server: LiveServer

    def call(self, method: str, *args: Any) -> dict[str, Any]:
        """What the call gave: kind is value, error or response."""
        answer = httpx.post(self.worker.url, json={"method": method, "args": args}, timeout=ANSWER_DEADLINE_S)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def run(self, inputs: dict[str, Any], options: dict[str, Any] | None = None) -> dict[str, Any]:
        """The result of a run that must succeed."""
        told = self.call("run", MODEL, inputs, options or {})
        assert told["kind"] == "value", told
        result: dict[str, Any] = told["value"]
        return result

    def stream(self, inputs: dict[str, Any]) -> Iterator[str]:
        """The lines of a stream, as they come."""
        call = {"method": "run", "args": [MODEL, {**inputs, "stream": True}]}
        with httpx.stream("POST", self.worker.url, json=call, timeout=ANSWER_DEADLINE_S) as answer:
            assert answer.headers["content-type"] == "text/event-stream", answer.read()
            yield from answer.iter_lines()

    def over_rest(self, **body: Any) -> dict[str, Any]:
        """What plain HTTP gets from the same server."""
        url = f"{self.server.account(ACCOUNT)}/ai/run/{MODEL}"
        answer = httpx.post(url, json=body, headers=AUTHORIZED, timeout=ANSWER_DEADLINE_S)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()["result"]
        return result


@pytest.fixture(scope="session")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes the bundled model's answers beyond doubt."""
    with open_checkpoint(bundled_model_path(Settings().cache_path)) as checkpoint:
        config = read_config(checkpoint)
    return write_peft_adapter(tmp_path_factory.mktemp("adapter"), config, seed=1, dtype="bfloat16", model_type="gemma")


@pytest.fixture(scope="session")
def token_server(adapter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serve(["--api-tokens", TOKEN], tmp_path_factory.mktemp("data")) as server:
        _upload(server, adapter_folder)
        yield server
        assert "Traceback" not in server.log.text, server.log.text


@pytest.fixture(scope="session")
def open_server(adapter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serve([], tmp_path_factory.mktemp("data")) as server:
        _upload(server, adapter_folder)
        yield server
        assert "Traceback" not in server.log.text, server.log.text


def _upload(server: LiveServer, folder: Path) -> None:
    with httpx.Client(base_url=server.account(ACCOUNT), headers=AUTHORIZED, timeout=ANSWER_DEADLINE_S) as client:
        assert client.post("/ai/finetunes", json={"model": MODEL, "name": ADAPTER}).status_code == 200
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            form: dict[str, Any] = {"data": {"file_name": file}, "files": {"file": (folder / file).read_bytes()}}
            assert client.post(f"/ai/finetunes/{ADAPTER}/finetune-assets", **form).status_code == 200


def wait_for_ends(server: LiveServer, seen: int, reason: str = r"\w+", count: int = 1) -> None:
    """Wait until so many runs have ended since the server's log was `seen` characters long."""
    line = rf"^[^\n]*\brun [^\n]* reason={reason}$"
    server.log.wait_for(rf"(?s)\A.{{{seen}}}(?:.*?{line}){{{count}}}")


def wrangler_dev(config: str, server: LiveServer, home: Path) -> AbstractContextManager[RunningWorker]:
    """`wrangler dev` as a developer runs it, on a free port."""
    command = [
        "node_modules/.bin/wrangler", "dev", "--config", config, "--ip", "127.0.0.1", "--port", "0",
        "--inspector-port", "0", "--persist-to", str(home / "state"), "--var", f"INTAGLIO_URL:{server.url}",
    ]  # fmt: skip
    return running(command, r"Ready on (http://\S+)", home)


def _wrangler(server: LiveServer, home: Path) -> AbstractContextManager[RunningWorker]:
    return wrangler_dev("wrangler.jsonc", server, home)


def _miniflare_service(server: LiveServer, home: Path) -> AbstractContextManager[RunningWorker]:
    return running([NODE_BIN / "node", "miniflare.mjs", "service", server.url], r"^ready at (\S+)", home)


def _miniflare_proxy(server: LiveServer, home: Path) -> AbstractContextManager[RunningWorker]:
    proxy = f"{server.account(ACCOUNT)}/ai/run/proxy"
    return running([NODE_BIN / "node", "miniflare.mjs", "proxy", proxy], r"^ready at (\S+)", home)


def _workerd(server: LiveServer, home: Path) -> AbstractContextManager[RunningWorker]:
    address = server.url.removeprefix("http://")
    command = ["node_modules/.bin/workerd", "serve", "workerd.capnp", "--external-addr", f"intaglio={address}"]
    return running([*command, "--control-fd", "1"], r'"socket":"http","port":(\d+)', home)


# How a Worker comes to its env.AI, and which of the servers it asks.
WAYS: MappingProxyType[str, tuple[str, Start]] = MappingProxyType({
    "wrangler dev, service binding": ("token_server", _wrangler),
    "miniflare, service binding": ("token_server", _miniflare_service),
    "miniflare, ai binding with a remote proxy": ("open_server", _miniflare_proxy),  # models() cannot send a token
    "workerd, ai binding over an external service": ("token_server", _workerd),
})  # fmt: skip


@pytest.fixture(scope="session", params=sorted(WAYS))
def env_ai(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnvAI]:
    which, start = WAYS[request.param]
    server = request.getfixturevalue(which)
    with start(server, tmp_path_factory.mktemp("home")) as worker:
        yield EnvAI(worker, server)
