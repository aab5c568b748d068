"""Compares our engine with the peers, workload by workload, in alternating runs.

Alternation keeps slow changes of the machine (clock, other load) out of the ratio. Each engine has one run per workload
to warm up. Figures are medians of the runs; the spread is (greatest - least) / median.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import ours, peer_llama_cpp, peer_openvino, peer_transformers, peer_vllm, results, roofline
from benchmarks.models import Home
from benchmarks.worker import Job, Sample, Worker, WorkerError
from benchmarks.workloads import Model, Workload

PEERS: dict[str, ModuleType] = {
    "llama_cpp": peer_llama_cpp,
    "openvino": peer_openvino,
    "vllm": peer_vllm,
    "transformers": peer_transformers,
}


class Bench:
    """The running engines, one worker per engine and model, each started at its first use."""

    def __init__(self, home: Home, threads: int) -> None:
        self._home, self._threads = home, threads
        self._workers: dict[tuple[str, Model], Worker] = {}

    def pair(self, workload: Workload, peer: str, repeats: int) -> tuple[list[float], list[float]]:
        """The workload's figures of our engine and of the peer, from alternating runs. Raises WorkerError."""
        engines = [self._worker("ours", workload.model), self._worker(peer, workload.model)]
        values: tuple[list[float], list[float]] = ([], [])
        for repeat in range(repeats + 1):
            for worker, taken in zip(engines, values, strict=True):
                figure = _figure(worker.run(workload, repeat), workload)
                if repeat:  # the first run warms up
                    taken.append(figure)
        return values

    def alone(self, workload: Workload, repeats: int) -> list[float]:
        worker = self._worker("ours", workload.model)
        return [_figure(worker.run(workload, repeat), workload) for repeat in range(repeats + 1)][1:]

    def close(self, peer: str) -> None:
        """End a peer's processes, to free its memory for the next."""
        for key in [key for key in self._workers if key[0] == peer]:
            self._workers.pop(key).close()

    def _worker(self, name: str, model: Model) -> Worker:
        if (name, model) not in self._workers:
            module = ours if name == "ours" else PEERS[name]
            job = Job(str(self._home.path), model, self._threads)
            self._workers[name, model] = Worker(module.python(self._home.path), module.__name__, job)
        return self._workers[name, model]


def _figure(sample: Sample, workload: Workload) -> float:
    value = getattr(sample, workload.figure)
    assert isinstance(value, float), f"{workload.name}: no {workload.figure} in {sample}"
    return value


def compare(
    home: Home, workloads: Sequence[Workload], peers: Sequence[str], *, repeats: int, threads: int
) -> dict[str, Any]:
    """Run all pairs; return the record. Peer by peer, so that only one of them is in memory beside our engine."""
    record: dict[str, Any] = {**results.environment(threads), "repeats": repeats, "rows": {}, "peers": {}}
    roof = roofline.probe(home.path, threads)
    record["roofline"] = asdict(roof)
    bench = Bench(home, threads)
    try:
        for workload in workloads:
            record["rows"][workload.name] = {"bound": _bound(home, workload, roof), "peers": {}}
            if not any(peer in peers for peer in workload.peers):
                record["rows"][workload.name]["ours"] = results.summary(bench.alone(workload, repeats))
        for peer in peers:
            if not PEERS[peer].installed(home.path):
                print(f"{peer} is not installed; `python -m benchmarks install {peer}`")
                continue
            record["peers"][peer] = PEERS[peer].version(home.path)
            for workload in workloads:
                if peer in workload.peers:
                    record["rows"][workload.name]["peers"][peer] = _pair(bench, workload, peer, repeats)
            bench.close(peer)
    finally:
        for name in ("ours", *PEERS):
            bench.close(name)
    return record


def _bound(home: Home, workload: Workload, roof: roofline.Roofline) -> float:
    lora = roofline.lora_macs(home.config(workload.model), workload) if workload.adapters else 0
    return roofline.bound(workload, roofline.cost_of(home, workload), lora, roof)


def _pair(bench: Bench, workload: Workload, peer: str, repeats: int) -> dict[str, Any]:
    refusal = PEERS[peer].refuses(workload)
    if refusal is not None:
        return {"refuses": refusal}
    print(f"{workload.name}: ours and {peer}, {repeats} runs each ...", flush=True)
    try:
        own, other = bench.pair(workload, peer, repeats)
    except WorkerError as error:
        print(error)  # the whole end of the log, whose paths must not be in the record
        return {"failed": str(error).splitlines()[-1]}
    ours_figure, peer_figure = results.summary(own), results.summary(other)
    return {"ours": ours_figure, "peer": peer_figure, "ratio": ours_figure["median"] / peer_figure["median"]}


def show(record: dict[str, Any], workloads: Sequence[Workload]) -> None:
    table = Table(title=f"{record['cpu']}, {record['threads']} threads, commit {record['commit']}")
    for column in ("workload", "figure", "peer", "ours tok/s", "peer tok/s", "ratio", "target", "bound tok/s"):
        table.add_column(column, justify="left" if column in ("workload", "figure", "peer") else "right")
    for workload in workloads:
        row = record["rows"][workload.name]
        bound = f"{row['bound']:,.0f}"
        if "ours" in row:
            table.add_row(workload.title, workload.figure, "", _text(row["ours"]), "", "", "", bound)
        for peer, pair in row["peers"].items():
            target = workload.targets.get(peer)
            cells = [_text(pair["ours"]), _text(pair["peer"]), f"{pair['ratio']:.2f}"] if "ratio" in pair else ["-"] * 3
            wanted = "" if target is None else f">= {target:g}"
            table.add_row(workload.title, workload.figure, peer, *cells, wanted, bound)
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    if not record["quiet"]:
        console.print(f"The load was {record['load_before']} before the run: these figures are only indicative.")


def _text(figure: dict[str, float]) -> str:
    return f"{figure['median']:,.1f} ±{figure['spread'] * 50:.0f} %"
