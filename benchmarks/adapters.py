"""What adapters cost the whole: a thousand registered against eight, and one that is not in memory."""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass
from typing import Any

from benchmarks import results
from benchmarks.models import Home, references
from benchmarks.ours import open_engine, request
from benchmarks.workloads import BY_NAME, FEW_ADAPTERS, MANY_ADAPTERS, Traffic
from intaglio.engine.engine import Engine
from intaglio.request import AdapterRef


@dataclass(frozen=True, slots=True)
class Served:
    """One run of a traffic. Seconds from a request's arrival to its first token, of all requests together."""

    output: float  # tokens per second
    ttft_s: list[float]


def many(home: Home, threads: int, repeats: int) -> dict[str, Any]:
    """Tokens per second of Zipf traffic over 1,000 adapters and over 8, in turns; each engine keeps its cache."""
    folders = home.many_adapters(MANY_ADAPTERS.registered)
    runs = []
    for traffic in (FEW_ADAPTERS, MANY_ADAPTERS):
        engine, config = open_engine(home, "270m", threads)
        adapters = references(folders[: traffic.registered], config)
        runs.append((traffic, engine, adapters))
    taken: dict[str, list[Served]] = {FEW_ADAPTERS.name: [], MANY_ADAPTERS.name: []}
    for repeat in range(repeats + 1):
        for traffic, engine, adapters in runs:
            served = serve(engine, traffic, adapters, repeat)
            if repeat:
                taken[traffic.name].append(served)
    figures = {name: results.summary([run.output for run in served]) for name, served in taken.items()}
    waits = {name: [wait for run in served for wait in run.ttft_s] for name, served in taken.items()}
    return {
        **results.environment(threads),
        "output": figures,
        "ratio": figures[MANY_ADAPTERS.name]["median"] / figures[FEW_ADAPTERS.name]["median"],
        "ttft_ms_median": {name: statistics.median(values) * 1000 for name, values in waits.items()},
    }


def serve(engine: Engine, traffic: Traffic, adapters: list[AdapterRef], seed: int) -> Served:
    """All requests of a traffic: as one ends, the next arrives."""
    chosen = traffic.adapters(seed)
    upcoming = iter(range(traffic.requests))
    arrived: dict[str, float] = {}
    first: dict[str, float] = {}
    total = 0

    def arrive(count: int) -> None:
        for number in itertools.islice(upcoming, count):
            name = f"{seed}/{number}"
            arrived[name] = time.perf_counter()
            prompt = traffic.prompt(number, seed)
            engine.add(request(name, prompt, traffic.output_tokens, adapters[chosen[number]]))

    begin = time.perf_counter()
    arrive(traffic.streams)
    while engine.has_work:
        outputs = engine.step()
        now = time.perf_counter()
        total += len(outputs)
        for output in outputs:
            first.setdefault(output.request_id, now)
        arrive(sum(output.finish_reason is not None for output in outputs))
    return Served(total / (time.perf_counter() - begin), [first[name] - arrived[name] for name in arrived])


def cold(home: Home, threads: int, repeats: int) -> dict[str, Any]:
    """Time to the first token of an adapter that is not in memory (its files are cached pages), and of one that is."""
    engine, config = open_engine(home, "270m", threads)
    adapters = references(home.many_adapters(repeats + 1), config)  # reading them here fills the page cache
    waits: dict[str, list[float]] = {"resident": [], "not_resident": []}
    for repeat, adapter in enumerate(adapters):
        for state in ("not_resident", "resident"):
            took = _first_token_s(engine, f"{state}/{repeat}", repeat, adapter)
            if repeat:
                waits[state].append(took)
    medians = {state: statistics.median(values) * 1000 for state, values in waits.items()}
    return {
        **results.environment(threads),
        "ttft_ms": medians,
        "added_ms": medians["not_resident"] - medians["resident"],
        "runs": repeats,
    }


def _first_token_s(engine: Engine, name: str, repeat: int, adapter: AdapterRef) -> float:
    begin = time.perf_counter()
    engine.add(request(name, BY_NAME["one_stream"].prompts(repeat)[0], 1, adapter))
    while engine.has_work:
        engine.step()
    return time.perf_counter() - begin
