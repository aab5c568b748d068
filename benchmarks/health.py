"""The response time of GET /health while the engine is idle, and while it keeps every core busy.

The load is continuous streams over eight adapters, each over its own connection. Another process requests /health at a
constant rate over one connection, as a load balancer does. A response time counts from when the request was due, so a
slow response also delays the ones after it.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.helpers.servers import LiveServer, serve

from benchmarks import results
from benchmarks.models import Home
from benchmarks.server import upload
from benchmarks.workloads import NUM_ADAPTERS
from intaglio.settings import DEFAULT_MODEL_ID

STREAMS = 16
OUTPUT_TOKENS = 200
PROMPT_CHARACTERS = (100, 300, 1000, 3000)  # prefill among the decodes: some 25 to 700 tokens
PERIOD_S = 0.02
ROOT = Path(__file__).resolve().parents[1]
TEXT = ROOT / "LICENSE"
TIMEOUT_S = 60
WARM_UP_TOKENS = 64  # of all streams together, before the measurement begins


def measure(home: Home, threads: int, seconds: float = 60) -> dict[str, Any]:
    """Response times in milliseconds, idle and under load (`summary_ms`), and the tokens per second of the load."""
    adapters = home.adapters("270m")
    environment = results.environment(threads)
    with (
        tempfile.TemporaryDirectory(prefix="intaglio-bench-") as folder,
        serve(["--threads", str(threads)], Path(folder)) as server,
    ):
        for index, adapter in enumerate(adapters):
            upload(server, f"bench-{index}", adapter)
        idle = _measure_in_process(server.url, seconds)
        with Load(server) as load:
            if not load.warm.wait(TIMEOUT_S):
                raise RuntimeError("the streams gave no text in time")
            begin, before = time.perf_counter(), load.tokens
            busy = _measure_in_process(server.url, seconds)
            tokens_per_s = (load.tokens - before) / (time.perf_counter() - begin)
    return {
        **environment,
        "streams": STREAMS,
        "period_ms": PERIOD_S * 1000,
        "idle": idle,
        "load": busy,
        "tokens_per_s": tokens_per_s,
    }


class Load:
    """Streams that start again as soon as they end, each in its own thread, until the block ends.

    tokens  events with text so far, of all streams
    warm    set once there are WARM_UP_TOKENS of them
    """

    def __init__(self, server: LiveServer) -> None:
        self._server = server
        self._stopping = threading.Event()
        self._text = TEXT.read_text()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._stream, args=(index,)) for index in range(STREAMS)]
        self.failed: BaseException | None = None
        self.tokens = 0
        self.warm = threading.Event()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self.failed is not None:
            raise self.failed

    def _stream(self, index: int) -> None:
        try:
            with _connected(self._server.url) as connection:
                turn = 0
                while not self._stopping.is_set():
                    self._run_stream(connection, index, turn)
                    turn += 1
        except BaseException as error:  # raised again when the block ends
            self.failed = error
            self.warm.set()
            raise

    def _run_stream(self, connection: http.client.HTTPConnection, index: int, turn: int) -> None:
        """Read one stream to its end. Each prompt begins at another place of the text: no prefix is ever cached."""
        length = PROMPT_CHARACTERS[(index + turn) % len(PROMPT_CHARACTERS)]
        start = (index * 641 + turn * 97) % (len(self._text) - length)
        body = {
            "prompt": self._text[start : start + length],
            "raw": True,
            "stream": True,
            "lora": f"bench-{index % NUM_ADAPTERS}",
            "max_tokens": OUTPUT_TOKENS,
            "seed": 1 + index,
        }
        path = urlsplit(self._server.account()).path + f"/ai/run/{DEFAULT_MODEL_ID}"
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise RuntimeError(f"a stream has status {response.status}: {response.read()!r}")
        for line in response:
            if line.startswith(b'data: {"response":"') and b'"p":' in line:
                with self._lock:
                    self.tokens += 1
                if self.tokens >= WARM_UP_TOKENS:
                    self.warm.set()


def _measure_in_process(url: str, seconds: float) -> dict[str, float]:
    """`measure_responses` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.health", url, str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def summary_ms(waits_s: list[float]) -> dict[str, float]:
    """Median, 99th percentile and worst in milliseconds, and the number of samples."""
    cuts = statistics.quantiles(waits_s, n=100, method="inclusive")
    return {
        "p50_ms": cuts[49] * 1000,
        "p99_ms": cuts[98] * 1000,
        "max_ms": max(waits_s) * 1000,
        "samples": len(waits_s),
    }


def measure_responses(url: str, seconds: float) -> dict[str, float]:
    """Request /health every PERIOD_S over one connection. Raises RuntimeError if a status is not 200."""
    waits = []
    with _connected(url) as connection:
        begin = time.perf_counter()
        for number in range(round(seconds / PERIOD_S)):
            due = begin + number * PERIOD_S
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.request("GET", "/health")
            response = connection.getresponse()
            content = response.read()
            waits.append(time.perf_counter() - due)
            if response.status != http.client.OK:
                raise RuntimeError(f"/health has status {response.status}: {content!r}")
    return summary_ms(waits)


@contextmanager
def _connected(url: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
    connection.connect()
    with closing(connection):
        yield connection


if __name__ == "__main__":
    print(json.dumps(measure_responses(sys.argv[1], float(sys.argv[2]))))
