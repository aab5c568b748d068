"""Writes the latest results into docs/performance.md, between its markers, and draws docs/performance.png.

A figure that was not measured, or only on a busy machine, is shown as not measured yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.compare import PEERS
from benchmarks.workloads import FEW_ADAPTERS, MANY_ADAPTERS, WORKLOADS

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, PLOT = DOCS / "performance.md", DOCS / "performance.png"
MISSING = "not measured yet"
NAMES = {"llama_cpp": "llama.cpp", "openvino": "OpenVINO", "vllm": "vLLM CPU", "transformers": "transformers + PEFT"}


def write(*, quiet_only: bool = True) -> None:
    """Fill every `<!-- table NAME -->` of the page, and draw the plot if steps were measured."""
    page = PAGE.read_text()
    for name, section in SECTIONS.items():
        kind = KINDS.get(name, name)
        text = section(results.latest(kind, quiet_only=quiet_only))
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- end {name} -->)"
        match = re.search(pattern, page, re.DOTALL)
        assert match is not None, f"{PAGE} has no markers for the table {name}"
        page = f"{page[: match.end(1)]}{text}\n{page[match.start(2) :]}"
    PAGE.write_text(page)
    steps = results.latest("steps", quiet_only=quiet_only)
    if steps is not None:
        draw(steps, results.latest("compare", quiet_only=quiet_only))


def _machine(record: dict[str, Any] | None) -> str:
    if record is None:
        return MISSING
    roof = record["roofline"]
    facts = [
        f"{record['cpu']}, {record['cores']} cores, {record['memory_gib']} GiB, Linux {record['kernel']}",
        f"{record['threads']} threads in every engine; commit {record['commit']}; {record['time']}; "
        f"load before the run {record['load_before']}",
        f"read bandwidth {roof['read_gbs']} GB/s; int8 dot products {roof['dot_gmacs']} GMAC/s ({roof['dot_set']})"
        + (f", {roof['amx_gmacs']} GMAC/s with AMX tiles" if roof["amx_gmacs"] else ""),
        "; ".join(record["peers"].values()),
    ]
    return "\n".join(f"- {fact}" for fact in facts if fact)


def _compare(record: dict[str, Any] | None) -> str:
    lines = [
        "| workload | figure | bound | ours | peer | its figure | ratio | target |",
        "|---|---|---:|---:|---|---:|---:|---:|",
    ]
    for workload in WORKLOADS:
        row = (record or {"rows": {}})["rows"].get(workload.name, {"peers": {}})
        bound = f"{row['bound']:,.0f}" if "bound" in row else MISSING
        for peer in workload.peers:
            target = f">= {workload.targets[peer]:g}" if peer in workload.targets else ""
            cells = " | ".join(_pair(row["peers"].get(peer), NAMES[peer]))
            lines.append(f"| {workload.title} | {workload.figure} | {bound} | {cells} | {target} |")
    return "\n".join(lines)


def _pair(pair: dict[str, Any] | None, peer: str) -> tuple[str, str, str, str]:
    """ours, peer, its figure, ratio"""
    if pair is None:
        return MISSING, peer, MISSING, MISSING
    if "ratio" not in pair:
        return "", peer, f"refuses: {pair['refuses']}" if "refuses" in pair else "failed", ""
    return _figure(pair["ours"]), peer, _figure(pair["peer"]), f"{pair['ratio']:.2f}"


def _figure(figure: dict[str, float]) -> str:
    return f"{figure['median']:,.1f} (±{figure['spread'] * 50:.0f} %)"


def _own(record: dict[str, Any] | None) -> str:
    """Mixed adapters against the base alone, from the comparison's own runs."""
    if record is None:
        return MISSING
    medians = {}
    for name in ("streams_16_base", "streams_16_adapters_8"):
        row = record["rows"].get(name, {"peers": {}})
        values = [pair["ours"]["median"] for pair in row["peers"].values() if "ours" in pair]
        if not values:
            return MISSING
        medians[name] = sum(values) / len(values)
    share = medians["streams_16_adapters_8"] / medians["streams_16_base"]
    return f"16 streams over 8 adapters give {share:.0%} of 16 streams of the base (target >= 90 %)."


def _many(record: dict[str, Any] | None) -> str:
    if record is None:
        return MISSING
    few, many = (record["output"][traffic.name] for traffic in (FEW_ADAPTERS, MANY_ADAPTERS))
    return f"{_figure(many)} tok/s over 1,000 adapters, {_figure(few)} over 8: {record['ratio']:.1%} (target >= 95 %)."


def _cold(record: dict[str, Any] | None) -> str:
    if record is None:
        return MISSING
    times = record["ttft_ms"]
    return (
        f"First token after {times['not_resident']:.1f} ms against {times['resident']:.1f} ms: "
        f"{record['added_ms']:.1f} ms more (target <= 10 ms; median of {record['runs']})."
    )


def _growing(record: dict[str, Any] | None) -> str:
    if record is None:
        return MISSING
    lines = [
        "| registered | held as | tok/s | first token, median ms | first token, p99 ms |",
        "|---:|---|---:|---:|---:|",
    ]
    for fmt, rows in record["formats"].items():
        for count, row in rows.items():
            times = f"{row['ttft_ms_median']:.0f} | {row['ttft_ms_p99']:.0f}"
            lines.append(f"| {int(count):,} | {fmt} | {_figure(row['output'])} | {times} |")
    return "\n".join(lines)


def _without_lora(record: dict[str, Any] | None) -> str:
    if record is None:
        return MISSING
    shares = ", ".join(f"{name} {row['ratio']:.1%}" for name, row in record["rows"].items())
    return f"Of the speed of an engine built without LoRA: {shares} (target >= 99 %)."


def _server(record: dict[str, Any] | None) -> str:
    if record is None:
        return MISSING
    lines = ["| process | resident MB | with shared pages divided |", "|---|---:|---:|"]
    for process in record["processes"]:
        lines.append(f"| `{process['command']}` | {process['rss_mb']:.0f} | {process['pss_mb']:.0f} |")
    lines.append(f"| together (target <= 700) | {record['rss_mb']:.0f} | {record['pss_mb']:.0f} |")
    return "\n".join([*lines, "", f"It was ready to serve {record['ready_s']:.1f} s after its start (target <= 2 s)."])


def _health(record: dict[str, Any] | None) -> str:
    if record is None:
        return MISSING
    names = {"idle": "idle", "load": f"{record['streams']} streams over 8 adapters, {record['tokens_per_s']:.0f} tok/s"}
    lines = ["| meanwhile | median ms | 99th percentile (target <= 50) | worst | responses |", "|---|--:|--:|--:|--:|"]
    for key, name in names.items():
        row = record[key]
        lines.append(f"| {name} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} | {row['max_ms']:.1f} | {row['samples']} |")
    return "\n".join(lines)


def _stream_cost(record: dict[str, Any] | None) -> str:
    if record is None:
        return MISSING
    low, high = record["cpu_us_spread"]
    byte = record["first_byte"]
    rows = {
        "processor time of the API process per streamed token (target <= 100 us)": (
            f"{record['cpu_us_per_token']:.0f} us ({low:.0f} to {high:.0f})"
        ),
        "processor time per request, beside its tokens": f"{record['cpu_ms_per_request']:.1f} ms",
        "first byte after its token: median, 99th percentile, worst": (
            f"{byte['p50_ms']:.1f}, {byte['p99_ms']:.1f}, {byte['max_ms']:.1f} ms"
        ),
        "a step of the engine meanwhile, the target for the first byte": f"{record['step_ms']:.1f} ms",
    }
    lines = [f"| {record['streams']} streams at once | measured |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {name} | {figure} |" for name, figure in rows.items())])


def _profile(record: dict[str, Any] | None) -> str:
    if record is None:
        return MISSING
    lines = ["| workload | ms a step | outside the extension | largest parts (ms) |", "|---|---:|---:|---|"]
    for name, row in record["rows"].items():
        parts = ", ".join(f"{part} {took:.2f}" for part, took in list(row["parts_ms"].items())[:4])
        lines.append(f"| {name} | {row['step_ms']:.2f} | {row['python_share']:.1%} | {parts} |")
    return "\n".join(lines)


def _accuracy(record: dict[str, Any] | None) -> str:
    if record is None:
        return MISSING
    return (
        f"{record['tokens']} tokens of `{record['text']}`, kernels {record['instruction_set']}: mean KL "
        f"{record['kl_mean']:.2e} nats (worst position {record['kl_worst']:.2e}), same best token at "
        f"{record['same_best']:.1%} of positions; loss {record['loss_fast']:.4f} against {record['loss_exact']:.4f}."
    )


def _steps(record: dict[str, Any] | None) -> str:
    if record is None:
        return MISSING
    names = {"batch": "streams", "context": "tokens of context", "adapters": "adapters in 32 streams"}
    rows = []
    for key, name in names.items():
        cells = ", ".join(f"{number}: {took:.1f}" for number, took in record[key].items())
        rows.append(f"| {name} | {cells} |")
    return "\n".join(["| what grows | ms a step |", "|---|---|", *rows])


SECTIONS: dict[str, Callable[[dict[str, Any] | None], str]] = {
    "machine": _machine,
    "compare": _compare,
    "own": _own,
    "many_adapters": _many,
    "cold_adapter": _cold,
    "growing_adapters": _growing,
    "without_lora": _without_lora,
    "server": _server,
    "health": _health,
    "stream_cost": _stream_cost,
    "profile": _profile,
    "accuracy": _accuracy,
    "steps": _steps,
}
KINDS = {"machine": "compare", "own": "compare"}  # sections that are made from the record of another section


def draw(steps: dict[str, Any], compared: dict[str, Any] | None) -> None:
    """Draw step times in three panels, and the ratios to the peers in a fourth."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 4, figsize=(18, 4))
    titles = {"batch": "streams", "context": "tokens of context, one stream", "adapters": "adapters in 32 streams"}
    for panel, (key, title) in zip(panels, titles.items(), strict=False):
        points = [(int(number), took) for number, took in steps[key].items()]
        panel.plot([x for x, _ in points], [y for _, y in points], marker="o")
        panel.set(xlabel=title, ylabel="ms per step", ylim=(0, None))
        panel.grid(alpha=0.3)
    _draw_ratios(panels[3], compared)
    figure.suptitle(f"Gemma 3 270M, {steps['threads']} threads, {steps['cpu']}, commit {steps['commit']}")
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)
    pyplot.close(figure)


def _draw_ratios(panel: Any, compared: dict[str, Any] | None) -> None:
    bars = [
        (f"{workload.name} / {NAMES[peer]}", pair["ratio"])
        for workload in WORKLOADS
        for peer, pair in ((compared or {"rows": {}})["rows"].get(workload.name, {"peers": {}}))["peers"].items()
        if "ratio" in pair and peer in PEERS
    ][::-1]
    panel.barh([name for name, _ in bars], [ratio for _, ratio in bars])
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set(xlabel="times the peer's figure")
    panel.tick_params(axis="y", labelsize=7)
