"""transformers + PEFT in bfloat16 on PyTorch.

Also makes the Hugging Face folder of the 270M, from the GGUF file, for the peers that do not read GGUF.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.worker import Job, Runner, Sample, serve
from benchmarks.workloads import NUM_ADAPTERS, Workload

PACKAGES = ("transformers==5.23.0", "peft==0.21.2", "gguf", "accelerate", "sentencepiece")


def python(home: Path) -> Path:
    return home / "transformers" / "venv" / "bin" / "python"


def refuses(_workload: Workload) -> str | None:
    return None


def installed(home: Path) -> bool:
    return python(home).exists() and (hf_folder(home) / "config.json").exists()


def version(_home: Path) -> str:
    return f"{PACKAGES[0]}, {PACKAGES[1]}, bfloat16".replace("==", " ")


def install(home: Path) -> None:
    """About two minutes."""
    from benchmarks.models import run_logged

    log = home / "logs" / "install-transformers.log"
    if not python(home).exists():
        run_logged([sys.executable, "-m", "venv", str(python(home).parents[1])], log)
        run_logged([str(python(home)), "-m", "pip", "install", "-q", "torch==2.13.0"], log)
        run_logged([str(python(home)), "-m", "pip", "install", "-q", *PACKAGES], log)
    make_hf_folder(home)


def hf_folder(home: Path) -> Path:
    return home / "models" / "gemma-3-270m-hf"


def make_hf_folder(home: Path) -> Path:
    """The 270M in bfloat16 as a Hugging Face folder, made from the GGUF file by this peer's environment if missing."""
    from benchmarks.models import Home, run_logged

    if not (hf_folder(home) / "config.json").exists():
        log = home / "logs" / "hf-folder.log"
        command = [str(python(home)), "-m", "benchmarks.peer_transformers", "--hf-folder", str(home)]
        root = Path(__file__).resolve().parents[1]
        run_logged([*command, str(Home(home).model("270m"))], log, cwd=root)
    return hf_folder(home)


def _write_hf_folder(folder: Path, gguf_file: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf_file.parent), "gguf_file": gguf_file.name}
    model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    if hasattr(model, "hf_quantizer"):
        del model.hf_quantizer
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}, indent=2))


class Transformers:
    """Calls `generate` for all streams at once, with PEFT's mixed batch if there are adapters."""

    def __init__(self, job: Job) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(job.threads)
        self._home = Path(job.home)
        self._base: Any = AutoModelForCausalLM.from_pretrained(hf_folder(self._home), dtype=torch.bfloat16).eval()
        self._with_adapters: Any = None

    def run(self, workload: Workload, repeat: int) -> Sample:
        streams, tokens = workload.streams, workload.output_tokens
        first_s = self._seconds(workload, 10_000 + repeat, 1)
        sample = Sample(prefill=streams * workload.prompt_tokens / first_s)
        if tokens == 1:
            return sample
        whole_s = self._seconds(workload, repeat, tokens)
        decode = streams * (tokens - 1) / (whole_s - first_s)
        return Sample(decode=decode, prefill=sample.prefill, output=streams * tokens / whole_s)

    def close(self) -> None:
        pass

    def _seconds(self, workload: Workload, repeat: int, tokens: int) -> float:
        import torch

        ids = torch.tensor(workload.prompts(repeat))
        options: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        model = self._base
        if workload.adapters:
            model = self._adapters()
            options["adapter_names"] = [f"a{workload.adapter_of(stream)}" for stream in range(workload.streams)]
        begin = time.perf_counter()
        with torch.inference_mode():
            generated = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        seconds = time.perf_counter() - begin
        if generated.shape[1] != ids.shape[1] + tokens:
            raise RuntimeError(f"transformers gave {generated.shape[1] - ids.shape[1]} tokens")
        return seconds

    def _adapters(self) -> Any:
        """The model with adapters, loaded at first use. From then on the base model contains PEFT's layers."""
        from peft import PeftModel

        if self._with_adapters is None:
            folders = [self._home / "adapters" / "270m" / f"adapter-{i}" for i in range(NUM_ADAPTERS)]
            self._with_adapters = PeftModel.from_pretrained(self._base, folders[0], adapter_name="a0").eval()
            for i, folder in enumerate(folders[1:], 1):
                self._with_adapters.load_adapter(folder, adapter_name=f"a{i}")
        return self._with_adapters


def open_runner(job: Job) -> Runner:
    os.environ["HF_HUB_OFFLINE"] = "1"
    return Transformers(job)


if __name__ == "__main__":
    if sys.argv[1] == "--hf-folder":
        _write_hf_folder(hf_folder(Path(sys.argv[2])), Path(sys.argv[3]))
    else:
        serve(open_runner)
