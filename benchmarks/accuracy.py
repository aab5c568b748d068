"""What quantized arithmetic changes: our fast kernels against float32 on the same, dequantized weights, on real text.

KL divergence of the next-token distributions and how often the best token is the same, over every position.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.helpers.forward import Prompt, run_prompts

from benchmarks import results
from benchmarks.models import Home
from intaglio.model.loader import load_gemma
from intaglio.ops.cpu import CpuOps
from intaglio.settings import load_settings
from intaglio.text import load_tokenizer

TOKENS = 512


def measure(home: Home, threads: int, text: Path) -> dict[str, Any]:
    """The first TOKENS tokens of a text, teacher-forced."""
    path = home.model("270m")
    tokenizer = load_tokenizer(path, cache_dir=load_settings().cache_path / "tokenizers", eos_ids=[1])
    ids = tokenizer.encode(text.read_text())[: TOKENS - 1]
    ops = CpuOps(threads)
    prompt = Prompt([2, *ids])
    exact = run_prompts(load_gemma(path, ops, "f32"), [prompt], ops=ops, block_size=16)[0]
    fast = run_prompts(load_gemma(path, ops, "auto"), [prompt], ops=ops, block_size=16)[0]
    divergence = _divergence(exact, fast)
    return {
        **results.environment(threads),
        "instruction_set": ops.instruction_set,
        "text": text.name,
        "tokens": len(prompt.ids),
        "kl_mean": float(divergence.mean()),
        "kl_worst": float(divergence.max()),
        "same_best": float((exact.argmax(axis=1) == fast.argmax(axis=1)).mean()),
        "loss_exact": _loss(exact, prompt.ids),
        "loss_fast": _loss(fast, prompt.ids),
    }


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _divergence(exact: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL(exact, other) of each row, in nats; row by row, because a matrix of doubles would take a gigabyte."""
    rows = []
    for one, two in zip(exact, other, strict=True):
        p, q = _log_softmax(one[None])[0], _log_softmax(two[None])[0]
        rows.append(float(np.sum(np.exp(p) * (p - q))))
    return np.array(rows)


def _loss(logits: NDArray[np.float32], ids: Any) -> float:
    """Mean negative log probability of each next token of the text, in nats."""
    losses = [-_log_softmax(row[None])[0][target] for row, target in zip(logits[:-1], ids[1:], strict=True)]
    return float(np.mean(losses))
