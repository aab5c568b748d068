"""What adapters cost the whole: a thousand registered against eight, and one that is not in memory."""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.models import Home
from benchmarks.ours import engine_spec, request
from benchmarks.workloads import BY_NAME, FEW_ADAPTERS, MANY_ADAPTERS, Traffic
from intaglio.engine.engine import Engine
from intaglio.engine.messages import EngineSpec
from intaglio.engine.worker import adapter_limits, build_engine, packed_adapters
from intaglio.lora.peft import read_peft_adapter
from intaglio.model.config import ModelConfig
from intaglio.request import AdapterRef


@dataclass(frozen=True, slots=True)
class Served:
    """One run of a traffic. Seconds from a request's arrival to its first token, of all requests together."""

    output: float  # tokens per second
    ttft_s: list[float]


def many(home: Home, threads: int, repeats: int) -> dict[str, Any]:
    """Tokens per second of Zipf traffic over 1,000 adapters and over 8, in turns; each engine keeps its cache."""
    spec, config = _spec(home, threads)
    adapters = registered(home.many_adapters(MANY_ADAPTERS.registered), spec, config)
    runs = [(traffic, build_engine(spec), adapters[: traffic.registered]) for traffic in (FEW_ADAPTERS, MANY_ADAPTERS)]
    taken: dict[str, list[Served]] = {FEW_ADAPTERS.name: [], MANY_ADAPTERS.name: []}
    for repeat in range(repeats + 1):
        for traffic, engine, choice in runs:
            served = serve(engine, traffic, choice, repeat)
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


def _spec(home: Home, threads: int) -> tuple[EngineSpec, ModelConfig]:
    """A thousand packed adapters are a few GB: they go to the benchmarks' folder, not to the user's cache."""
    return engine_spec(home, "270m", threads, cache_dir=home.path / "cache")


def registered(folders: list[Path], spec: EngineSpec, config: ModelConfig) -> list[AdapterRef]:
    """The adapters as an upload leaves them: checked, and packed for the engine."""
    packed = packed_adapters(spec)
    refs = []
    for folder in folders:
        adapter = read_peft_adapter(folder, config, adapter_limits(spec))
        packed.keep(adapter)
        refs.append(AdapterRef(adapter.digest, str(folder)))
    return refs


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
    spec, config = _spec(home, threads)
    engine = build_engine(spec)
    adapters = registered(home.many_adapters(repeats + 1), spec, config)  # reading them here fills the page cache
    waits: dict[str, list[float]] = {"resident": [], "not_resident": []}
    for repeat, adapter in enumerate(adapters):
        for turn, state in enumerate(("not_resident", "resident")):
            # a prompt of its own each time: the rows of the embedding that a prompt needs are read as coldly in both
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
    engine.rest()  # as the engine's process does before it waits for the next request
    return took
