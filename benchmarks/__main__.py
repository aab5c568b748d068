"""`python -m benchmarks COMMAND`; see docs/performance.md for what to run in which order."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import (
    accuracy,
    adapters,
    compare,
    health,
    profile_step,
    report,
    results,
    server,
    seven_b,
    steps,
    stream_cost,
    without_lora,
)
from benchmarks.models import Home
from benchmarks.workloads import BY_NAME, WORKLOADS, WORKLOADS_7B

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)

DEFAULT_HOME = Path("~/.cache/intaglio-bench")
HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="BENCH_HOME", callback=Path.expanduser, help="folder of peers, models and adapters"),
]
Threads = Annotated[int, typer.Option(help="threads of every engine")]
Repeats = Annotated[int, typer.Option(help="measured runs of each engine, after one to warm up")]
TEXT = Path("LICENSE")
CORES = len(os.sched_getaffinity(0))


@app.command()
def install(peers: list[str], home: HomeOption = DEFAULT_HOME) -> None:
    """Install peers: llama_cpp, transformers, openvino, vllm, or all."""
    for peer in _known(peers, ("transformers", "llama_cpp", "openvino", "vllm")):
        module = compare.PEERS[peer]
        if module.installed(home):
            print(f"{peer}: installed")
        else:
            print(f"{peer}: installing; the log is {home}/logs/install-{peer}.log")
            module.install(home)


@app.command()
def run(
    workload: Annotated[list[str], typer.Option(help="name of a workload; repeatable")] = [],  # noqa: B006
    peer: Annotated[list[str], typer.Option(help="name of a peer; repeatable; `none`: our engine alone")] = [],  # noqa: B006
    home: HomeOption = DEFAULT_HOME,
    threads: Threads = CORES,
    repeats: Repeats = 5,
) -> None:
    """Our engine and the peers, in alternating runs. Writes a line to benchmarks/results/compare.jsonl."""
    chosen = [BY_NAME[name] for name in _known(workload, BY_NAME)] or list(WORKLOADS)
    peers = [] if peer == ["none"] else _known(peer, compare.PEERS) or list(compare.PEERS)
    record = compare.compare(Home(home), chosen, peers, repeats=repeats, threads=threads)
    compare.show(record, chosen)
    _write("compare", record)


@app.command(name="7b")
def seven_b_command(
    home: HomeOption = DEFAULT_HOME,
    threads: Threads = CORES,
    repeats: Repeats = 3,
    peer: Annotated[bool, typer.Option(help="llama.cpp beside us, if it is installed")] = True,
) -> None:
    """The shape of Gemma 7B: starts, memory, the whole window, then speed beside llama.cpp."""
    _write("7b", seven_b.measure(Home(home), threads))
    record = compare.compare(Home(home), WORKLOADS_7B, ["llama_cpp"] if peer else [], repeats=repeats, threads=threads)
    compare.show(record, WORKLOADS_7B)
    _write("compare_7b", record)


@app.command(name="adapters")
def adapters_command(home: HomeOption = DEFAULT_HOME, threads: Threads = CORES, repeats: Repeats = 5) -> None:
    """A thousand adapters against eight; the first token of an adapter that is not in memory; up to two thousand."""
    _write("many_adapters", adapters.many(Home(home), threads, repeats))
    _write("cold_adapter", adapters.cold(Home(home), threads, max(repeats, 30)))
    _write("growing_adapters", adapters.growing(Home(home), threads, repeats))


@app.command(name="without-lora")
def without_lora_command(home: HomeOption = DEFAULT_HOME, threads: Threads = CORES, repeats: Repeats = 11) -> None:
    """Base-only speed against an engine built without LoRA."""
    _write("without_lora", without_lora.measure(Home(home), threads, repeats))


@app.command(name="server")
def server_command(home: HomeOption = DEFAULT_HOME, threads: Threads = CORES) -> None:
    """Memory of the whole server with eight adapters."""
    _write("server", server.measure(Home(home), threads))


@app.command(name="health")
def health_command(
    home: HomeOption = DEFAULT_HOME,
    threads: Threads = CORES,
    seconds: Annotated[float, typer.Option(help="of requests while idle, and again under load")] = 60,
) -> None:
    """Response time of GET /health, idle and while every core computes."""
    _write("health", health.measure(Home(home), threads, seconds))


@app.command(name="stream-cost")
def stream_cost_command(home: HomeOption = DEFAULT_HOME, threads: Threads = CORES) -> None:
    """Processor time of the API process per streamed token, and the delay of a stream's first byte."""
    _write("stream_cost", stream_cost.measure(Home(home), threads))


@app.command(name="steps")
def steps_command(
    home: HomeOption = DEFAULT_HOME, threads: Threads = CORES, count: Annotated[int, typer.Option()] = 40
) -> None:
    """Step time against batch size, context length and number of adapters."""
    _write("steps", steps.measure(Home(home), threads, count))


@app.command()
def profile(home: HomeOption = DEFAULT_HOME, threads: Threads = CORES) -> None:
    """Share of Python in a step, and the time in each function of the extension."""
    record = profile_step.measure(Home(home), threads)
    profile_step.show(record)
    _write("profile", record)


@app.command(name="accuracy")
def accuracy_command(home: HomeOption = DEFAULT_HOME, threads: Threads = CORES, text: Path = TEXT) -> None:
    """KL divergence and agreement of the quantized kernels with float32 on a text."""
    _write("accuracy", accuracy.measure(Home(home), threads, text))


@app.command(name="report")
def report_command(
    indicative: Annotated[bool, typer.Option(help="use figures of a busy machine too")] = False,
) -> None:
    """Fill the tables of docs/performance.md from the latest results, and draw its plot."""
    report.write(quiet_only=not indicative)


def _known(names: Iterable[str], known: Iterable[str]) -> list[str]:
    names, known = list(names), list(known)
    if names == ["all"]:
        return known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}; known: {', '.join(known)}")
    return names


def _write(kind: str, record: dict[str, Any]) -> None:
    path = results.write(kind, record)
    shown = {key: value for key, value in record.items() if key not in ("rows", "peers", "roofline")}
    print(f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}: {shown}")


if __name__ == "__main__":
    app()
