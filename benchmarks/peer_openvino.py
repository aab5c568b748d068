"""OpenVINO GenAI, weights in int8, on the 270M. It has one set of adapters for a whole batch, so no mixed batches."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.worker import Job, Runner, Sample, serve
from benchmarks.workloads import Workload

PACKAGES = (
    "openvino==2026.4.*",
    "openvino-genai==2026.4.*",
    "openvino-tokenizers==2026.4.*",
    "nncf",
    "optimum-intel",
    "transformers<=5.0",
)


def python(home: Path) -> Path:
    return home / "openvino" / "venv" / "bin" / "python"


def refuses(workload: Workload) -> str | None:
    if workload.model != "270m":
        return "not exported"
    return "one adapter set for the whole batch" if workload.adapters else None


def installed(home: Path) -> bool:
    return (_model(home) / "openvino_model.bin").exists()


def version(_home: Path) -> str:
    return "openvino-genai 2026.4, int8 weights"


def install(home: Path) -> None:
    """About four minutes, after the transformers peer, which makes the folder to export from."""
    from benchmarks import peer_transformers
    from benchmarks.models import run_logged

    log = home / "logs" / "install-openvino.log"
    if not python(home).exists():
        run_logged([sys.executable, "-m", "venv", str(python(home).parents[1])], log)
        run_logged([str(python(home)), "-m", "pip", "install", "-q", "torch==2.13.0"], log)
        run_logged([str(python(home)), "-m", "pip", "install", "-q", *PACKAGES, "torch==2.13.0"], log)
        # A dependency for vision models, built for another torch.
        run_logged([str(python(home)), "-m", "pip", "uninstall", "-q", "-y", "torchvision"], log)
    source = peer_transformers.make_hf_folder(home)
    export = [str(python(home).with_name("optimum-cli")), "export", "openvino", "--model", str(source)]
    run_logged([*export, "--task", "text-generation-with-past", "--weight-format", "int8", str(_model(home))], log)


def _model(home: Path) -> Path:
    return home / "models" / "gemma-3-270m-openvino-int8"


class OpenVino:
    """The pipeline with continuous batching, for one stream as for many."""

    def __init__(self, job: Job) -> None:
        import openvino_genai

        self._genai: Any = openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = 2  # GiB
        scheduler.enable_prefix_caching = False
        scheduler.max_num_batched_tokens = 2048
        properties = {"INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY"}
        self._pipeline: Any = openvino_genai.ContinuousBatchingPipeline(
            str(_model(Path(job.home))), scheduler, "CPU", properties
        )

    def run(self, workload: Workload, repeat: int) -> Sample:
        import numpy as np
        import openvino as ov

        prompts = [ov.Tensor(np.array([ids], np.int64)) for ids in workload.prompts(repeat)]
        config = self._genai.GenerationConfig(max_new_tokens=workload.output_tokens, ignore_eos=True, do_sample=False)
        handles = [self._pipeline.add_request(i, prompt, config) for i, prompt in enumerate(prompts)]
        begin = first = time.perf_counter()
        counts = [0] * workload.streams
        decoded = 0
        while self._pipeline.has_non_finished_requests():
            started = all(counts)
            self._pipeline.step()
            now = time.perf_counter()
            for stream, handle in enumerate(handles):
                new = _new_tokens(handle)
                counts[stream] += new
                decoded += new if started else 0
            first = first if started else now
        last = time.perf_counter()
        if sum(counts) != workload.streams * workload.output_tokens:
            raise RuntimeError(f"OpenVINO gave {counts} tokens")
        return Sample(
            decode=decoded / (last - first) if decoded else None,
            prefill=workload.streams * workload.prompt_tokens / (first - begin),
            output=sum(counts) / (last - begin),
        )

    def close(self) -> None:
        pass


def _new_tokens(handle: Any) -> int:
    """Tokens that a request got since the last call."""
    count = 0
    while handle.can_read():
        count += sum(len(output.generated_ids) for output in handle.read().values())
    return count


def open_runner(job: Job) -> Runner:
    return OpenVino(job)


if __name__ == "__main__":
    serve(open_runner)
