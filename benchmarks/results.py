"""One JSON line per run in benchmarks/results/: figures, machine and settings."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
MAX_LOAD = 0.3  # cores that other processes may use; above it figures are only indicative
LOAD_S = 2.0  # for which the load is measured: a load average would include the benchmark before this one


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, and the spread between the least and the greatest value as a share of it."""
    middle = statistics.median(values)
    return {"median": middle, "spread": (max(values) - min(values)) / middle if middle else 0.0, "runs": len(values)}


def environment(threads: int) -> dict[str, Any]:
    """Commit, machine, settings, and how busy the machine was before the run."""
    load = _busy_cores()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "threads": threads,
        "load_before": round(load, 2),
        "quiet": load < MAX_LOAD,
    }


def write(kind: str, record: dict[str, Any]) -> Path:
    """Append the record to results/<kind>.jsonl."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{kind}.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"kind": kind, **record}) + "\n")
    return path


def latest(kind: str, *, quiet_only: bool = True) -> dict[str, Any] | None:
    """The last record of a kind, None if there is none; by default only of runs on an idle machine."""
    path = RESULTS / f"{kind}.jsonl"
    if not path.exists():
        return None
    records = [json.loads(line) for line in path.read_text().splitlines()]
    usable = [record for record in records if record["quiet"] or not quiet_only]
    return usable[-1] if usable else None


def _busy_cores() -> float:
    """Cores that were not idle over the next LOAD_S seconds."""

    def busy_ticks() -> int:
        user, nice, system, _idle, _waiting, *others = map(
            int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]
        )
        return user + nice + system + sum(others)

    before = busy_ticks()
    time.sleep(LOAD_S)
    return (busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / LOAD_S


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=RESULTS.parent, stdout=subprocess.PIPE, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "../src", "../csrc")
    return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
