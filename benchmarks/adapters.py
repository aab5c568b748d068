"""The cost of many adapters: a thousand against eight, up to two thousand, and one that is not in memory."""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass
from typing import Any

from benchmarks import results
from benchmarks.models import Home, references
from benchmarks.ours import engine_spec, request
from benchmarks.workloads import BY_NAME, FEW_ADAPTERS, GROWING_ADAPTERS, MANY_ADAPTERS, Traffic
from intaglio.engine.adapter_loader import AdapterLoader
from intaglio.engine.core_process import build_engine
from intaglio.engine.engine import Engine
from intaglio.engine.protocol import EngineSpec
from intaglio.request import AdapterRef


@dataclass(frozen=True, slots=True)
class Served:
    """One run of a traffic. ttft_s: seconds from arrival to first token, of every request."""

    output: float  # tokens per second
    ttft_s: list[float]


def many(home: Home, threads: int, repeats: int) -> dict[str, Any]:
    """Tokens per second of Zipf traffic over 1,000 adapters and over 8, in alternating runs on two engines."""
    spec = _spec(home, threads)
    few_served, many_served = build_engine(spec), build_engine(spec)
    adapters = registered(home, MANY_ADAPTERS.registered, many_served.adapters)
    runs = [(FEW_ADAPTERS, few_served.engine), (MANY_ADAPTERS, many_served.engine)]
    taken: dict[str, list[Served]] = {FEW_ADAPTERS.name: [], MANY_ADAPTERS.name: []}
    for repeat in range(repeats + 1):
        for traffic, engine in runs:
            served = serve(engine, traffic, adapters[: traffic.registered], repeat)
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


def growing(home: Home, threads: int, repeats: int) -> dict[str, Any]:
    """Throughput and first token of the same traffic over 5 to 2,000 registered adapters, in float16 and in int8.

    All counts alternate in one engine per format, each with its own Zipf ranks over the same adapters. So the adapters
    in memory at the begin of a run are those that the runs before it used.
    """
    found: dict[str, Any] = {}
    for fmt, traffics in GROWING_ADAPTERS.items():
        served_model = build_engine(_spec(home, threads, adapter_format=fmt))
        adapters = registered(home, traffics[-1].registered, served_model.adapters)
        taken: dict[int, list[Served]] = {traffic.registered: [] for traffic in traffics}
        for repeat in range(repeats + 1):
            for traffic in traffics:
                served = serve(served_model.engine, traffic, adapters[: traffic.registered], repeat)
                if repeat:
                    taken[traffic.registered].append(served)
        found[fmt] = {count: _row(runs) for count, runs in taken.items()}
    return {**results.environment(threads), "formats": found}


def _row(runs: list[Served]) -> dict[str, Any]:
    waits = sorted(wait * 1000 for run in runs for wait in run.ttft_s)
    return {
        "output": results.summary([run.output for run in runs]),
        "ttft_ms_median": statistics.median(waits),
        "ttft_ms_p99": waits[int(0.99 * (len(waits) - 1))],
        "requests": len(waits),
    }


def _spec(home: Home, threads: int, **options: Any) -> EngineSpec:
    """An engine that keeps packed adapters, many GB of them, in the benchmarks' folder, not in the user's cache."""
    return engine_spec(home, "270m", threads, cache_dir=home.path / "cache", **options)[0]


def registered(home: Home, count: int, loader: AdapterLoader) -> list[AdapterRef]:
    """Adapters that are checked, verified and packed, as after an upload."""
    refs = references(home.many_adapters(count), home.config("270m"))
    for ref in refs:
        loader.verify(ref)
    return refs


def serve(engine: Engine, traffic: Traffic, adapters: list[AdapterRef], seed: int) -> Served:
    """Run all requests of a traffic: when one ends, the next arrives."""
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
    """Time to first token with an adapter that is not in memory, its files in the page cache, and with one that is."""
    engine, loader = build_engine(_spec(home, threads))
    adapters = registered(home, repeats + 1, loader)  # verifying them here fills the page cache
    waits: dict[str, list[float]] = {"resident": [], "not_resident": []}
    for repeat, adapter in enumerate(adapters):
        for turn, state in enumerate(("not_resident", "resident")):
            # A new prompt each time, so that its rows of the embedding have not been read before in either state.
            took = _first_token_s(engine, 2 * repeat + turn, adapter)
            if repeat:
                waits[state].append(took)
    medians = {state: statistics.median(values) * 1000 for state, values in waits.items()}
    return {
        **results.environment(threads),
        "ttft_ms": medians,
        "added_ms": medians["not_resident"] - medians["resident"],
        "runs": repeats,
    }


def _first_token_s(engine: Engine, number: int, adapter: AdapterRef) -> float:
    (prompt,) = BY_NAME["one_stream"].prompts(number)
    begin = time.perf_counter()
    engine.add(request(str(number), prompt, 1, adapter))
    while engine.has_work:
        engine.step()
    took = time.perf_counter() - begin
    engine.preallocate_adapter_memory()  # as the engine's process does before it waits for the next request
    return took
