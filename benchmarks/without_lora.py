"""The cost of LoRA support for requests without adapters: our engine against one built without LoRA.

The second extension is compiled here with INTAGLIO_WITHOUT_LORA, which removes adapters from the products in
csrc/runtime/jobs.h. Both run streams of the base model, alternating, in two processes.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.models import Home, run_logged
from benchmarks.worker import ROOT, Job, Runner, Worker, serve
from benchmarks.workloads import BY_NAME

MACRO = "INTAGLIO_WITHOUT_LORA"
WORKLOADS = ("one_stream", "streams_16_base")


class NotPossibleError(RuntimeError):
    """csrc/runtime/jobs.h has no INTAGLIO_WITHOUT_LORA."""


def measure(home: Home, threads: int, repeats: int) -> dict[str, Any]:
    """Ratio of our figure to that of the engine without LoRA, per workload."""
    build(home.path)
    job = Job(str(home.path), "270m", threads)
    workers = {
        "with": Worker(Path(sys.executable), "benchmarks.ours", job),
        "without": Worker(Path(sys.executable), "benchmarks.without_lora", job),
    }
    rows = {}
    try:
        for name in WORKLOADS:
            workload = BY_NAME[name]
            taken: dict[str, list[float]] = {kind: [] for kind in workers}
            for repeat in range(repeats + 1):
                for kind, worker in workers.items():
                    figure = worker.run(workload, repeat).decode
                    if repeat and figure is not None:
                        taken[kind].append(figure)
            figures: dict[str, Any] = {kind: results.summary(values) for kind, values in taken.items()}
            rows[name] = {**figures, "ratio": figures["with"]["median"] / figures["without"]["median"]}
    finally:
        for worker in workers.values():
            worker.close()
    return {**results.environment(threads), "rows": rows, "ratios": {name: row["ratio"] for name, row in rows.items()}}


def build(home: Path) -> Path:
    """Compile the extension without LoRA. Raises NotPossibleError if csrc/runtime/jobs.h has no such option."""
    if MACRO not in (ROOT / "csrc" / "runtime" / "jobs.h").read_text():
        raise NotPossibleError(f"csrc/runtime/jobs.h has no {MACRO}")
    folder, log = home / "without-lora", home / "logs" / "without-lora.log"
    cmake = [sys.executable, "-m", "cmake"] if importlib.util.find_spec("cmake") else ["cmake"]
    options = [f"-DPython_EXECUTABLE={sys.executable}", f"-DCMAKE_CXX_FLAGS=-D{MACRO}"]
    run_logged([*cmake, "-S", str(ROOT), "-B", str(folder), *options], log)
    run_logged([*cmake, "--build", str(folder), "-j", "2"], log)
    (library,) = folder.glob("_cpu*.so")
    return library


def _import_from(library: Path) -> None:
    """Make `import intaglio.ops._cpu` use this library."""
    spec = importlib.util.spec_from_file_location("intaglio.ops._cpu", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["intaglio.ops._cpu"] = module


def open_runner(job: Job) -> Runner:
    (library,) = (Path(job.home) / "without-lora").glob("_cpu*.so")
    _import_from(library)
    from benchmarks.ours import Ours

    return Ours(job)


if __name__ == "__main__":
    serve(open_runner)
