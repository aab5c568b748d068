"""The bound of a workload's speed on this machine, by reading weights or by int8 products.

A small C++ program measures both limits, with the same number of threads as the engines.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.models import Home
from benchmarks.workloads import Workload
from intaglio.model.config import ModelConfig
from intaglio.model.quantize import format_of
from intaglio.model.weights import open_checkpoint

# Packed bytes per weight, with a scale of two bytes per 32 weights; some types have a minimum too.
BYTES = {"w8": 1 + 2 / 32, "w5": 0.625 + 2 / 32, "w4": 0.5 + 2 / 32, "bf16": 2.0, "f32": 4.0}
MINIMUM = 2 / 32
HAVE_MINIMA = ("Q4_1", "Q5_1", "Q4_K", "Q5_K")


@dataclass(frozen=True, slots=True)
class Roofline:
    """The limits of the machine.

    read_gbs   10^9 bytes per second read from memory
    dot_gmacs  10^9 int8 multiply-adds per second with the instructions of `dot_set`
    amx_gmacs  the same with matrix tiles, 0 if there are none; for bfloat16 it is half of that
    """

    read_gbs: float
    dot_gmacs: float
    dot_set: str
    amx_gmacs: float


@dataclass(frozen=True, slots=True)
class Cost:
    """The bytes that one forward of a model reads, and its products.

    blocks_bytes, head_bytes    weights of the blocks, and of the head
    blocks_macs, head_macs      multiply-adds per token
    """

    blocks_bytes: float
    head_bytes: float
    blocks_macs: float
    head_macs: float


def probe(home: Path, threads: int) -> Roofline:
    """Run the C++ program, after building it if it is not current; about fifteen seconds."""
    source, program = Path(__file__).with_suffix(".cpp"), home / "roofline"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        home.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CXX", "c++")
        flags = ["-O3", "-march=native", "-std=c++17", "-pthread"]
        subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
    measured: dict[str, Any] = json.loads(
        subprocess.run([str(program), str(threads)], check=True, text=True, stdout=subprocess.PIPE).stdout
    )
    return Roofline(**measured)


def cost_of(home: Home, workload: Workload) -> Cost:
    """The cost of a forward with the checkpoint's tensors as our engine packs them."""
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
    """Upper bound of the workload's figure, in tokens per second, for this arithmetic on this machine.

    A step reads every weight once and multiplies it with every row; it cannot be faster than either. Attention,
    norms and sampling are left out, so the bound cannot be reached. Adapters are float16 in memory and count as if they
    were multiplied like weights.
    """
    gmacs = max(roof.dot_gmacs, roof.amx_gmacs / 2)  # our kernels multiply bfloat16 on tiles
    prompt = workload.streams * workload.prompt_tokens
    heads = workload.streams
    prefill_s = max(
        (cost.blocks_bytes + cost.head_bytes) / (roof.read_gbs * 1e9),
        (prompt * (cost.blocks_macs + lora_macs) + heads * cost.head_macs) / (gmacs * 1e9),
    )
    step_bytes = cost.blocks_bytes + cost.head_bytes + workload.adapters * lora_macs * 2
    step_macs = workload.streams * (cost.blocks_macs + cost.head_macs + lora_macs)
    step_s = max(step_bytes / (roof.read_gbs * 1e9), step_macs / (gmacs * 1e9))
    if workload.figure == "prefill":
        return prompt / prefill_s
    if workload.figure == "decode":
        return workload.streams / step_s
    tokens = workload.output_tokens
    return workload.streams * tokens / (prefill_s + (tokens - 1) * step_s)


def lora_macs(config: ModelConfig, workload: Workload) -> int:
    """Multiply-adds per token of one of the workload's adapters, which is also the number of its weights."""
    shapes = config.linear_layer_shapes().items()
    changed = [size for name, size in shapes if name.rpartition(".")[2] in workload.projections]
    return config.num_layers * sum(workload.rank * (out + into) for out, into in changed)
