"""The time of a decode step by batch size, by context length and by number of adapters."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.models import Home, references
from benchmarks.ours import open_engine, request
from benchmarks.workloads import BOS
from intaglio.engine.engine import Engine
from intaglio.request import AdapterRef

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
CONTEXTS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
ADAPTERS = (0, 1, 2, 4, 8, 16, 32)
PROMPT = 64


def measure(home: Home, threads: int, steps: int) -> dict[str, Any]:
    """Milliseconds per step, each the median of `steps` steps."""
    engine, config = open_engine(home, "270m", threads)
    folders: list[Path] = home.many_adapters(max(ADAPTERS))
    adapters = references(folders, config)
    none: list[AdapterRef | None] = [None]
    most = max(BATCHES)
    step_ms(engine, 1, PROMPT, none, steps)  # warm up
    step_ms(engine, most, PROMPT, list(adapters), most)  # load all adapters
    return {
        **results.environment(threads),
        "steps": steps,
        "batch": {n: step_ms(engine, n, PROMPT, none, steps) for n in BATCHES},
        "context": {n: step_ms(engine, 1, n, none, steps) for n in CONTEXTS},
        "adapters": {n: step_ms(engine, most, PROMPT, list(adapters[:n]) or none, steps) for n in ADAPTERS},
    }


def step_ms(engine: Engine, streams: int, context: int, adapters: list[AdapterRef | None], steps: int) -> float:
    """The median decode step of `streams` streams that start with `context` tokens, with adapters in turn."""
    for stream in range(streams):
        prompt = [BOS] + [1000 + (stream * 7919 + i * 31) % 200_000 for i in range(context - 1)]
        engine.add(request(f"stream {stream}", prompt, steps + 1, adapters[stream % len(adapters)]))
    started: set[str] = set()
    taken = []
    while engine.has_work:
        decoding = len(started) == streams
        begin = time.perf_counter()
        outputs = engine.step()
        if decoding and len(outputs) == streams:
            taken.append(time.perf_counter() - begin)
        started.update(output.request_id for output in outputs)
    return statistics.median(taken) * 1000
