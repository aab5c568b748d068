"""A whole server with a tiny model, and requests to it from many threads at once."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.servers import LiveServer, serve
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_model
from tests.hostile.case import CONFIG, WEIGHTS
from tests.hostile.good_adapter import Files

MODEL = "@local/tiny"
DEADLINE_S = 60.0
NO_END = {"1": -100, "8": -100}  # no <eos>, no <end_of_turn>: a completion always has max_tokens tokens
WINDOW = 16_384

T = TypeVar("T")


@contextmanager
def tiny_server(root: Path, data_dir: Path, *arguments: str, vocab_size: int = 512) -> Iterator[LiveServer]:
    """`intaglio serve` with a model of three layers and a context window for long streams."""
    config = tiny_config("gemma", max_position_embeddings=WINDOW, vocab_size=vocab_size)
    if not (root / "model").exists():
        write_hf_folder(root / "model", config, random_weights(config, 1), dtype="bfloat16")
        write_tokenizer_model(root / "model" / "tokenizer.model", tiny_pieces(vocab_size))
    options = [f"--model={MODEL}={root / 'model'}", "--kv-cache-bytes", str(1 << 26), "--threads", "1"]
    with serve([*options, "--cache-dir", str(root / "cache"), *arguments], data_dir) as server:
        yield server


@dataclass(frozen=True, slots=True)
class TinyServer:
    """Requests to a running server. The methods may be called from any thread."""

    server: LiveServer
    http: httpx.Client

    @property
    def finetunes(self) -> str:
        return f"{self.server.account()}/ai/finetunes"

    def create(self, name: str) -> None:
        response = self.http.post(self.finetunes, json={"model": MODEL, "name": name})
        assert response.status_code == 200, response.text

    def upload(self, name: str, file_name: str, content: bytes) -> httpx.Response:
        parts = {"file_name": (None, file_name), "file": ("blob", content)}
        return self.http.post(f"{self.finetunes}/{name}/finetune-assets", files=parts)  # type: ignore[arg-type]

    def publish(self, name: str, files: Files) -> str:
        """Create a finetune and upload both of its files, which must be accepted. Returns its digest."""
        self.create(name)
        for file_name, content in ((CONFIG, files.config), (WEIGHTS, files.weights)):
            response = self.upload(name, file_name, content)
            assert response.status_code == 200, response.text
        return str(self.read(name)["digest"])

    def read(self, name: str) -> dict[str, Any]:
        response = self.http.get(f"{self.finetunes}/{name}")
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()["result"]
        return result

    def wait_for_step(self, name: str, step: str) -> None:
        """Wait until the check of an upload is at the step."""
        deadline = threading.Event()
        timer = threading.Timer(DEADLINE_S, deadline.set)
        timer.start()
        while (self.read(name).get("check") or self.read(name).get("pending", {}).get("check") or {}).get(
            "step"
        ) != step:
            assert not deadline.is_set(), self.read(name)
        timer.cancel()

    def text(self, name: str | None, max_tokens: int = 40) -> tuple[str, str | None]:
        """A completion with an adapter, or of the base, and the digest in the response's headers."""
        response = self.http.post(f"{self.server.account()}/ai/v1/completions", json=body(name, max_tokens))
        assert response.status_code == 200, response.text
        return response.json()["choices"][0]["text"], response.headers.get("intaglio-adapter-digest")

    @contextmanager
    def stream(self, name: str) -> Iterator[Iterator[str]]:
        """The pieces of a completion of thousands of tokens; the client disconnects when the block ends."""
        url = f"{self.server.account()}/ai/v1/completions"
        with self.http.stream("POST", url, json=body(name, WINDOW - 100, stream=True)) as response:
            assert response.status_code == 200
            yield _pieces(response)

    @contextmanager
    def engine_stopped(self) -> Iterator[int]:
        """Stop the engine process (SIGSTOP) while the block runs: requests that need it wait. The value is its id."""
        pid = engine_pid(self.server.pid)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield pid
        finally:
            with suppress(ProcessLookupError):  # the block may have killed it
                os.kill(pid, signal.SIGCONT)

    def check_unharmed(self) -> None:
        assert self.http.get(f"{self.server.url}/health").status_code == 200
        assert "Traceback" not in self.server.log.text, self.server.log.text
        assert list((self.server.data_dir / "incoming").iterdir()) == []


def body(name: str | None, max_tokens: int, **fields: Any) -> dict[str, Any]:
    """A request that samples with a fixed seed: any change of a logit soon changes the text."""
    asked = {"model": MODEL, "prompt": "hello there", "max_tokens": max_tokens, "temperature": 1, "seed": 7}
    return asked | {"logit_bias": NO_END} | ({} if name is None else {"lora": name}) | fields


def _pieces(response: httpx.Response) -> Iterator[str]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            assert "error" not in event, event
            yield from (choice["text"] for choice in event["choices"])


def engine_pid(server_pid: int) -> int:
    """The process of the server's only engine: the child that was started last."""
    return max(int(child) for child in Path(f"/proc/{server_pid}/task/{server_pid}/children").read_text().split())


def run_at_once(acts: Sequence[Callable[[], T]]) -> list[T]:
    """The results of all functions, which start at the same time, in threads."""
    start = threading.Barrier(len(acts))

    def begin(act: Callable[[], T]) -> T:
        start.wait(DEADLINE_S)
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result(DEADLINE_S) for future in [pool.submit(begin, act) for act in acts]]
