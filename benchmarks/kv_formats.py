"""What keys and values in fewer bits cost: `python -m benchmarks.kv_formats`.

The bundled 270M reads pieces of this project's pages, each of one context length and 64 tokens more, with keys and
values in float32, bfloat16 and int8. The logits of the last 64 tokens are compared, once with float32 weights, where
keys and values are the only thing that is rounded, and once with the weights as they are served, where every small
difference also changes how activations are rounded to int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.helpers.distributions import distance
from tests.helpers.forward import Prompt, run_prompts

from intaglio.base_model import BaseModel
from intaglio.model.bundled import bundled_model_path
from intaglio.model.loader import load_gemma
from intaglio.model.quantize import WeightFormat
from intaglio.ops import KVFormat
from intaglio.ops.cpu import CpuOps
from intaglio.settings import load_settings

F32 = NDArray[np.float32]

PIECES = {64: 4, 2048: 4, 8192: 2}  # by the tokens of context
COMPARED = 64  # tokens after the context whose logits are compared
PAGES = sorted(Path().glob("*.md")) + sorted(Path("docs").glob("*.md"))


def page_ids() -> list[int]:
    """Token ids of all pages, with a BOS."""
    settings = load_settings()
    text = "\n\n".join(page.read_text("utf-8") for page in PAGES)
    return BaseModel.open(bundled_model_path(settings.cache_path), settings).render_prompt(text, raw=True)


def pieces(context: int, count: int) -> list[list[int]]:
    """Token ids of `count` pieces of the pages, spread evenly."""
    ids = page_ids()
    length = context + COMPARED
    starts = np.linspace(1, len(ids) - length, count).astype(int)
    return [[ids[0], *ids[start : start + length - 1]] for start in starts]


def logits(weights: WeightFormat, kv_format: KVFormat, context: int, prompts: Sequence[Sequence[int]]) -> F32:
    """[pieces * COMPARED, vocab]."""
    ops = CpuOps()
    model = load_gemma(bundled_model_path(load_settings().cache_path), ops, weights)
    wanted = range(context, context + COMPARED)
    found = [
        run_prompts(model, [Prompt(ids)], ops=ops, chunk=512, wanted=wanted, block_size=16, kv_format=kv_format)[0]
        for ids in prompts
    ]
    return np.concatenate(found)


def main() -> None:
    for weights in ("f32", "auto"):
        for context, count in PIECES.items():
            report(weights, context, pieces(context, count))


def report(weights: WeightFormat, context: int, prompts: Sequence[Sequence[int]]) -> None:
    exact = logits(weights, "f32", context, prompts)
    for fmt in ("bf16", "int8"):
        found = distance(exact, logits(weights, fmt, context, prompts))
        print(
            f"weights {weights}, {context} tokens, {fmt}: mean KL {found.mean_kl:.1e}, "
            f"99 % {np.quantile(found.kl, 0.99):.1e}, same best {found.same_best:.1%} of {len(exact)}, "
            f"by up to {found.lead.max():.2f} nats",
            flush=True,
        )


if __name__ == "__main__":
    main()
