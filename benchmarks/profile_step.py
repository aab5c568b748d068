"""Divides the time of a step among the functions of the extension and Python."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from benchmarks import results
from benchmarks.models import Home, references
from benchmarks.ours import open_engine, request
from benchmarks.workloads import BY_NAME, Workload
from intaglio.engine.engine import Engine

WARM_UP = 8  # steps


class _TimedDevice:
    """Wraps the extension's Device and adds up the time inside each of its functions."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._device, name)
        if not callable(function):
            return function
        timed = self._timed(name, function)
        setattr(self, name, timed)
        return timed

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            begin = time.perf_counter()
            result = function(*arguments)
            self.seconds[name] += time.perf_counter() - begin
            self.calls[name] += 1
            return result

        return call


def measure(home: Home, threads: int) -> dict[str, Any]:
    """Per workload: milliseconds per decode step, the share outside the extension, and the parts inside."""
    names = ("one_stream", "streams_16_base", "streams_16_adapters_8")
    engine, config = open_engine(home, "270m", threads)
    adapters = references(home.adapters("270m"), config)
    device = _TimedDevice(engine._ops._device)  # type: ignore[attr-defined]
    rows = {}
    for name in names:
        workload = BY_NAME[name]
        for stream, prompt in enumerate(workload.prompts(0)):
            index = workload.adapter_of(stream)
            adapter = None if index is None else adapters[index]
            engine.add(request(f"{name}/{stream}", prompt, workload.output_tokens, adapter))
        rows[name] = _profiled(engine, device, workload)
    return {**results.environment(threads), "rows": rows}


def _profiled(engine: Engine, device: _TimedDevice, workload: Workload) -> dict[str, Any]:
    """Alternates steps without timing, which give the time of a step, and with timing, which give its parts."""
    ops = engine._ops
    plain = device._device
    while any(sequence.num_pending > 1 for sequence in engine.scheduler.running) or engine.scheduler.waiting:
        engine.step()
    for _ in range(WARM_UP):
        engine.step()
    device.seconds.clear()
    device.calls.clear()
    counts, totals = [0, 0], [0.0, 0.0]
    while len(engine.scheduler.running) == workload.streams:
        with_timing = counts[0] > counts[1]
        ops._device = device if with_timing else plain  # type: ignore[attr-defined]
        begin = time.perf_counter()
        engine.step()
        totals[with_timing] += time.perf_counter() - begin
        counts[with_timing] += 1
    ops._device = plain  # type: ignore[attr-defined]
    steps = counts[1]
    # The cost of timing lies outside the timed calls, but must not count as Python's share of a step.
    inside = sum(device.seconds.values()) + sum(device.calls.values()) * _timing_cost_s()
    parts = sorted(device.seconds, key=lambda name: -device.seconds[name])
    return {
        "step_ms": totals[0] / counts[0] * 1000,
        "python_share": 1 - inside / totals[1],
        "timing_overhead": totals[1] / steps / (totals[0] / counts[0]) - 1,
        "parts_ms": {name: device.seconds[name] / steps * 1000 for name in parts},
        "calls": {name: device.calls[name] / steps for name in parts},
    }


def _timing_cost_s() -> float:
    """Seconds that timing adds outside a timed call: the least of several measurements with an empty function."""
    device = _TimedDevice(_EmptyDevice())
    costs = []
    for _ in range(5):
        device.seconds.clear()
        begin = time.perf_counter()
        for _ in range(10_000):
            device.nothing()
        costs.append((time.perf_counter() - begin - device.seconds["nothing"]) / 10_000)
    return min(costs)


class _EmptyDevice:
    def nothing(self) -> None:
        """Takes almost no time."""


def show(record: dict[str, Any]) -> None:
    for name, row in record["rows"].items():
        print(f"{name}: {row['step_ms']:.2f} ms a step, {row['python_share']:.1%} of it outside the extension")
        for part, part_ms in row["parts_ms"].items():
            print(f"    {part:16} {part_ms:8.3f} ms  {row['calls'][part]:6.1f} calls")
