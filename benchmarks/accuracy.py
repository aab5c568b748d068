"""The cost of quantized arithmetic: the kernels against float32 with the same, dequantized weights, on real text.

KL divergence of the next-token distributions and the share of positions with the same best token; for our kernels, and
for llama.cpp on the same file and token ids if it is installed (`python -m benchmarks install llama_cpp`).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.helpers.distributions import distance
from tests.helpers.forward import Prompt, run_prompts

from benchmarks import peer_llama_cpp, results
from benchmarks.models import Home
from intaglio.model.loader import load_gemma
from intaglio.ops.cpu import CpuOps
from intaglio.settings import load_settings
from intaglio.text import load_tokenizer

TOKENS = 700

F32 = NDArray[np.float32]


def measure(home: Home, threads: int, text: Path) -> dict[str, Any]:
    """Figures over the first TOKENS tokens of a text."""
    path = home.model("270m")
    tokenizer = load_tokenizer(path, cache_dir=load_settings().cache_path / "tokenizers", eos_ids=[1])
    ids = [2, *tokenizer.encode(text.read_text())[: TOKENS - 1]]
    ops, prompt = CpuOps(threads), Prompt(ids)
    exact = run_prompts(load_gemma(path, ops, "f32"), [prompt], ops=ops, block_size=16)[0]
    ours = _figures(exact, run_prompts(load_gemma(path, ops, "auto"), [prompt], ops=ops, block_size=16)[0], ids)
    llama_cpp = None
    if _library(home).exists():
        logits = _llama_cpp_logits(home, path, ids, threads)
        llama_cpp = {"version": peer_llama_cpp.VERSION, **_figures(exact, logits, ids)}
    return {
        **results.environment(threads),
        "instruction_set": ops.instruction_set,
        "text": text.name,
        "tokens": len(ids),
        **ours,
        "loss_exact": _loss(exact, ids),
        "llama_cpp": llama_cpp,
    }


def _figures(exact: F32, logits: F32, ids: list[int]) -> dict[str, float]:
    """In nats. `lead_worst`: by how much float32 at most prefers its best token where the other's differs."""
    found = distance(exact, logits)
    return {
        "kl_mean": found.mean_kl,
        "kl_worst": float(found.kl.max()),
        "same_best": found.same_best,
        "lead_worst": float(found.lead.max()),
        "loss_fast": _loss(logits, ids),
    }


def _loss(logits: F32, ids: list[int]) -> float:
    """Mean negative log probability of each next token of the text, in nats."""
    losses = []
    for row, target in zip(logits[:-1], ids[1:], strict=True):
        shifted = row - row.max()
        losses.append(np.log(np.exp(shifted).sum(dtype=np.float64)) - shifted[target])
    return float(np.mean(losses))


def _library(home: Home) -> Path:
    return home.path / "llama_cpp" / "build" / "bin" / "libllama.so"


def _llama_cpp_logits(home: Home, model: Path, ids: list[int], threads: int) -> F32:
    """Logits [tokens, vocabulary] of llama.cpp, from a small program that uses its library."""
    source, folder = Path(__file__).with_name("llama_logits.cpp"), home.path / "llama_cpp"
    program, libraries = folder / "llama_logits", _library(home).parent
    headers = folder / f"llama_cpp_python-{peer_llama_cpp.VERSION}" / "vendor" / "llama.cpp"
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O2", str(source), "-o", str(program)]
    command += [f"-I{headers / 'include'}", f"-I{headers / 'ggml' / 'include'}"]
    subprocess.run([*command, f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lllama"], check=True)
    given = np.array(ids, np.int32).tobytes()
    done = subprocess.run([str(program), str(model), str(threads)], input=given, stdout=subprocess.PIPE, check=True)
    return np.frombuffer(done.stdout, np.float32).reshape(len(ids), -1)
