"""Memory of all processes of a server with eight adapters in use, and the time until it is ready."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from tests.helpers.servers import LiveServer, serve

from benchmarks import results
from benchmarks.models import Home
from intaglio.settings import DEFAULT_MODEL_ID

FILES = ("adapter_config.json", "adapter_model.safetensors")


def measure(home: Home, threads: int) -> dict[str, Any]:
    """Resident memory after a request with every adapter: the sum over processes, and with shared pages once."""
    adapters = home.adapters("270m")
    with tempfile.TemporaryDirectory(prefix="intaglio-bench-") as folder:
        begin = time.perf_counter()
        with serve(["--threads", str(threads)], Path(folder)) as server:
            ready_s = time.perf_counter() - begin
            for index, adapter in enumerate(adapters):
                upload(server, f"bench-{index}", adapter)
                _run_model(server, f"bench-{index}")
            processes = [_memory(pid) for pid in _process_tree(server.pid)]
    return {
        **results.environment(threads),
        "ready_s": ready_s,
        "processes": processes,
        "rss_mb": sum(process["rss_mb"] for process in processes),
        "pss_mb": sum(process["pss_mb"] for process in processes),
    }


def upload(server: LiveServer, name: str, folder: Path) -> None:
    """Create a finetune of the bundled model from a PEFT folder."""
    config = {"model": DEFAULT_MODEL_ID, "name": name, "description": "benchmark"}
    created = _post(f"{server.account()}/ai/finetunes", json.dumps(config).encode(), "application/json")
    for file in FILES:
        boundary = uuid.uuid4().hex
        parts = [
            _part(boundary, f'name="file_name"\r\n\r\n{file}'.encode()),
            _part(boundary, f'name="file"; filename="{file}"\r\n\r\n'.encode() + (folder / file).read_bytes()),
            f"--{boundary}--\r\n".encode(),
        ]
        url = f"{server.account()}/ai/finetunes/{created['result']['id']}/finetune-assets"
        _post(url, b"".join(parts), f"multipart/form-data; boundary={boundary}")


def _part(boundary: str, content: bytes) -> bytes:
    return f"--{boundary}\r\nContent-Disposition: form-data; ".encode() + content + b"\r\n"


def _run_model(server: LiveServer, adapter: str) -> None:
    body = {"prompt": "The sea is", "raw": True, "lora": adapter, "max_tokens": 16}
    _post(f"{server.account()}/ai/run/{DEFAULT_MODEL_ID}", json.dumps(body).encode(), "application/json")


def _post(url: str, body: bytes, kind: str) -> Any:
    request = urllib.request.Request(url, body, {"content-type": kind})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def _process_tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(pid for file in children for child in file.read_text().split() for pid in _process_tree(int(child)))]


def _memory(pid: int) -> dict[str, Any]:
    """rss counts shared pages in full, pss divides them by the number of processes that share them."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    sizes: dict[str, float] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size = line.split(":")
        sizes[name] = int(size.split()[0]) * 1024 / 1e6
    keys = {"rss_mb": "Rss", "pss_mb": "Pss", "anonymous_mb": "Anonymous"}
    return {"command": " ".join(words[1:3]), **{key: sizes[name] for key, name in keys.items()}}
