"""How fast this machine could at best run a workload: bound by reading weights, or by int8 products.

A small C++ probe measures both, alone and with the same number of threads as the engines.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.models import Home
from benchmarks.workloads import RANK, Workload
from intaglio.model.config import ModelConfig
from intaglio.model.quantize import format_of
from intaglio.model.weights import open_checkpoint

# Packed bytes per weight: the numbers, and per 32 of them a scale of two bytes; some have a minimum too.
BYTES = {"w8": 1 + 2 / 32, "w5": 0.625 + 2 / 32, "w4": 0.5 + 2 / 32, "bf16": 2.0, "f32": 4.0}
MINIMUM = 2 / 32
HAVE_MINIMA = ("Q4_1", "Q5_1", "Q4_K", "Q5_K")


@dataclass(frozen=True, slots=True)
class Roofline:
    """What the probe measured.

    read_gbs   10^9 bytes per second read from memory
    dot_gmacs  10^9 int8 multiply-adds per second with the instructions of `dot_set`
    amx_gmacs  the same with matrix tiles, which do half as many of bfloat16; 0 where there are none
    """

    read_gbs: float
    dot_gmacs: float
    dot_set: str
    amx_gmacs: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What one forward of a model reads and multiplies.

    body_bytes, head_bytes    weights of the blocks, and of the head
    body_macs, head_macs      multiply-adds per token
    """

    body_bytes: float
    head_bytes: float
    body_macs: float
    head_macs: float


def probe(home: Path, threads: int) -> Roofline:
    """Build the probe if need be and run it: about fifteen seconds."""
    source, program = Path(__file__).with_suffix(".cpp"), home / "roofline"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        home.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CXX", "c++")
        flags = ["-O3", "-march=native", "-std=c++17", "-pthread"]
        subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
    answer: dict[str, Any] = json.loads(
        subprocess.run([str(program), str(threads)], check=True, text=True, stdout=subprocess.PIPE).stdout
    )
    return Roofline(**answer)


def cost_of(home: Home, workload: Workload) -> Cost:
    """From the checkpoint's storage types, as our engine packs them."""
    sizes, counts = [0.0, 0.0], [0, 0]
    with open_checkpoint(home.model(workload.model)) as checkpoint:
        for name in checkpoint.names():
            info = checkpoint.info(name)
            if len(info.shape) != 2:
                continue
            is_table = name.startswith(("model.embed_tokens", "lm_head"))
            fmt = format_of(info.dtype, "auto", is_table=is_table)
            count = info.shape[0] * info.shape[1]
            sizes[is_table] += count * (BYTES[fmt] + MINIMUM * (info.dtype in HAVE_MINIMA and fmt in ("w5", "w4")))
            counts[is_table] += count
    return Cost(sizes[0], sizes[1], counts[0], counts[1])


def bound(workload: Workload, cost: Cost, lora_macs: float, roof: Roofline) -> float:
    """Tokens per second of the workload's figure that no arrangement of the same arithmetic on this machine can exceed.

    A step reads every weight once and multiplies it with every row; it cannot be faster than either. Attention,
    norms and sampling are left out, so the bound is above what can be had. Adapters are float16 in memory and count as
    if they were multiplied like weights.
    """
    gmacs = max(roof.dot_gmacs, roof.amx_gmacs / 2)  # our kernels multiply bfloat16 on tiles
    prompt = workload.streams * workload.prompt_tokens
    heads = workload.streams
    prefill_s = max(
        (cost.body_bytes + cost.head_bytes) / (roof.read_gbs * 1e9),
        (prompt * (cost.body_macs + lora_macs) + heads * cost.head_macs) / (gmacs * 1e9),
    )
    step_bytes = cost.body_bytes + cost.head_bytes + workload.adapters * lora_macs * 2
    step_macs = workload.streams * (cost.body_macs + cost.head_macs + lora_macs)
    step_s = max(step_bytes / (roof.read_gbs * 1e9), step_macs / (gmacs * 1e9))
    if workload.figure == "prefill":
        return prompt / prefill_s
    if workload.figure == "decode":
        return workload.streams / step_s
    tokens = workload.output_tokens
    return workload.streams * tokens / (prefill_s + (tokens - 1) * step_s)


def lora_macs(config: ModelConfig) -> int:
    """Multiply-adds per token of one adapter on all seven projections; also the number of its values."""
    return config.num_layers * sum(RANK * (out + into) for out, into in config.projection_shapes().values())
