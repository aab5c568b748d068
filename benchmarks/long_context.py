"""A long prompt beside transformers: `.venv-oracle/bin/python -m benchmarks.long_context [TOKENS]`.

`make test-oracle` makes that environment.

The bundled 270M reads this project's pages, 32,768 tokens of them unless told otherwise: its whole context. The peer
computes in float32, in chunks; ours once with weights, keys and values in float32, and once as it is served. Logits are
compared at positions around windows and chunks, and at the last. Prints also the seconds of each, and the bytes of keys
and values that a server keeps, since sliding layers keep their window only.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from numpy.typing import NDArray
from tests.helpers.distributions import distance
from tests.helpers.forward import Prompt, run_prompts
from tests.oracle.transformers_peft import load_hf_gguf

from benchmarks.kv_formats import page_ids
from intaglio.engine.kv_cache import CacheShape
from intaglio.model.bundled import bundled_model_path
from intaglio.model.config import ModelConfig
from intaglio.model.loader import load_gemma
from intaglio.model.quantize import WeightFormat
from intaglio.ops import KVFormat
from intaglio.ops.cached_values import token_bytes
from intaglio.ops.cpu import CpuOps
from intaglio.settings import load_settings

F32 = NDArray[np.float32]

CHUNK = 512
COMPARED = (0, 511, 512, 513, 4095, 8191, 16_383, 24_575)  # and the last


def transformers_logits(ids: list[int], rows: list[int]) -> F32:
    """[rows, vocab]: the prompt in chunks, because scores of all pairs of tokens would not fit into memory."""
    import torch

    model = load_hf_gguf(bundled_model_path(load_settings().cache_path), "gemma3")
    model.set_attn_implementation("sdpa")
    past, found = None, []
    with torch.no_grad():
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            wanted = torch.tensor([row - start for row in rows if start <= row < start + len(chunk)], dtype=torch.long)
            # No positions would mean all: then the last one is computed, and dropped.
            kept = wanted if len(wanted) else 1
            out = model(input_ids=torch.tensor([chunk]), past_key_values=past, use_cache=True, logits_to_keep=kept)
            past = out.past_key_values
            if len(wanted):
                found.append(out.logits[0].float().numpy())
    return np.concatenate(found)


def our_logits(ids: list[int], rows: list[int], weights: WeightFormat, kv_format: KVFormat) -> F32:
    ops = CpuOps()
    model = load_gemma(bundled_model_path(load_settings().cache_path), ops, weights)
    return run_prompts(model, [Prompt(ids)], ops=ops, chunk=CHUNK, wanted=rows, block_size=16, kv_format=kv_format)[0]


def kept_bytes(config: ModelConfig, kv_format: KVFormat, tokens: int) -> tuple[int, int]:
    """Of one sequence: as a server keeps them, and if every layer kept all tokens."""
    shape = CacheShape(config, kv_format, block_size=16, max_running=1, step_tokens=CHUNK)
    every = config.num_layers * tokens * token_bytes(kv_format, config.num_kv_heads, config.head_dim)
    return shape.bytes_for(1, tokens), every


def main(tokens: int) -> None:
    ids = page_ids()[:tokens]
    rows = [row for row in COMPARED if row < tokens - 1] + [tokens - 1]
    begin = time.perf_counter()
    expected = transformers_logits(ids, rows)
    print(f"transformers float32: {time.perf_counter() - begin:.0f} s", flush=True)
    config = load_gemma(bundled_model_path(load_settings().cache_path), CpuOps(1)).config
    for weights, kv_format in (("f32", "f32"), ("auto", "bf16"), ("auto", "int8")):
        begin = time.perf_counter()
        logits = our_logits(ids, rows, weights, kv_format)
        seconds, (kept, every) = time.perf_counter() - begin, kept_bytes(config, kv_format, tokens)
        largest = [float(row) for row in np.abs(logits - expected).max(axis=1)]
        print(
            f"weights {weights}, keys and values {kv_format}: {seconds:.0f} s, {kept / 1e6:.0f} MB "
            f"(all layers in full: {every / 1e6:.0f} MB), mean KL {distance(expected, logits).mean_kl:.1e}"
        )
        for row, difference in zip(rows, largest, strict=True):
            print(f"  position {row}: largest difference {difference:.1e}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 32_768)
