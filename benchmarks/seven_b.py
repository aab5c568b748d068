"""A server with the true shape of Gemma 7B: seconds until it serves, memory, and its whole context window filled.

The model has random weights in Q4_0 and Gemma's own tokenizer (`models.py`). The first start lays the weights out for
the kernels; later ones map the cached file: from the page cache, or from disk after `posix_fadvise(DONTNEED)`.
"""

from __future__ import annotations

import json
import os
import random
import re
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.helpers.servers import LiveServer, serve

from benchmarks import results
from benchmarks.models import CONTEXT, Home
from benchmarks.workloads import BOS, VOCABULARY

MODEL_ID = "@cf/google/gemma-7b-it-lora"
DEADLINE_S = 1800
OUTPUT_TOKENS = 32  # after the prompt that fills the window
BLOCK = 16  # of the KV cache


def measure(home: Home, threads: int) -> dict[str, Any]:
    """The record of three starts, and of one prompt as long as the window beside the sum of the memory table."""
    model = home.model("7b")
    record: dict[str, Any] = {**results.environment(threads), "starts": {}}
    with tempfile.TemporaryDirectory(prefix="bench-7b-", dir=home.path) as folder:
        cache = Path(folder) / "cache"
        options = ["--model", f"{MODEL_ID}={model}", "--cache-dir", str(cache), "--threads", str(threads)]
        for name in ("first, packs the weights", "packed file not in the page cache", "packed file in the page cache"):
            if "not in" in name:
                _drop_from_page_cache([model, *cache.rglob("*")])
            begin = time.perf_counter()
            with serve(options, Path(folder) / "data", deadline_s=DEADLINE_S) as server:
                seconds = time.perf_counter() - begin
                record["starts"][name] = {"ready_s": seconds, **_memory(server)}
                record["table"] = re.findall(r"^  .*$", server.log.text, re.MULTILINE)[:6]
            print(name, record["starts"][name], flush=True)
        # A cache of exactly one window, so that one prompt fills it.
        kv_bytes = 2 * 28 * 16 * 256 * 2 * (CONTEXT + BLOCK)
        full = [*options, "--kv-cache-bytes", str(kv_bytes), "--adapter-cache-bytes", str(1 << 26)]
        with serve(full, Path(folder) / "data", deadline_s=DEADLINE_S) as server:
            record["window"] = _fill_window(server)
            record["window"] |= {**_memory(server), "planned_mb": _planned_mb(server)}
            print(record["window"], flush=True)
    return record


def _fill_window(server: LiveServer) -> dict[str, float]:
    """One prompt of all tokens but the last, streamed: tokens per second before and after the first token."""
    draw = random.Random(7)
    prompt = [BOS, *(draw.randrange(*VOCABULARY) for _ in range(CONTEXT - OUTPUT_TOKENS - 1))]
    body = {"model": MODEL_ID, "prompt": prompt, "max_tokens": OUTPUT_TOKENS, "temperature": 0, "stream": True}
    times = [time.perf_counter(), *_token_times(server, body)]
    return {
        "prompt_tokens": len(prompt),
        "output_tokens": len(times) - 1,
        "first_token_s": times[1] - times[0],
        "prefill": len(prompt) / (times[1] - times[0]),
        "decode": (len(times) - 2) / (times[-1] - times[1]) if len(times) > 2 else 0.0,
    }


def _token_times(server: LiveServer, body: dict[str, Any]) -> Iterator[float]:
    url = f"{server.account()}/ai/v1/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
        for line in response:
            if line.startswith(b"data: {"):
                yield time.perf_counter()


def _drop_from_page_cache(paths: list[Path]) -> None:
    os.sync()  # only pages that are on the disk can be dropped
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _memory(server: LiveServer) -> dict[str, float]:
    """Of the engine process, MB: resident now, and at most since it was started."""
    (engine,) = (
        int(pid) for file in Path(f"/proc/{server.pid}/task").glob("*/children") for pid in file.read_text().split()
    )
    status = dict(line.split(":", 1) for line in Path(f"/proc/{engine}/status").read_text().splitlines())
    return {
        name: int(status[key].split()[0]) * 1024 / 1e6 for name, key in (("resident_mb", "VmRSS"), ("peak_mb", "VmHWM"))
    }


def _planned_mb(server: LiveServer) -> float:
    """What the table of the start says that the engine uses when every cache is full, without the adapter cache."""
    rows = dict(re.findall(r"^    (weights|KV cache|working memory) +([\d,]+)", server.log.text, re.MULTILINE))
    return float(sum(int(size.replace(",", "")) for size in rows.values()))
