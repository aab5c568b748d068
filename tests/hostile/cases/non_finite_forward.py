"""Adapters of finite numbers whose forward is not finite: the reader accepts them, the verification must refuse them.

The last one passes the verification too: its forward is finite on every token of the verification's text, but not on
another token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.hostile.case import changed
from tests.hostile.cases.tables import (
    EMBEDDING,
    HEAD_TABLE,
    ROWS,
    SAVED,
    TABLE,
    TOKENS,
    VOCAB,
    WITH_EMBEDDING,
    table_pair,
)
from tests.hostile.cases.vectors_and_norms import BIAS, DORA, HIDDEN, NORM, put
from tests.hostile.good_adapter import Files, Tensors, with_tensors

# A verification looks up about a thousand tokens: every one of a small vocabulary, every other one of a larger.
POISONED_TOKEN = 501
LARGE_VOCAB = 2048


def filled(part: str, value: float) -> Callable[[Tensors], None]:
    """Fill every tensor whose name contains `part` with one value."""

    def fill(tensors: Tensors) -> None:
        for name, old in tensors.items():
            if part in name:
                tensors[name] = np.full(old.shape, value, np.float32)

    return fill


def spoilt(*changes: Callable[[Tensors], Any], **config: Any) -> Callable[[Files], Files]:
    def make(good: Files) -> Files:
        weights = good.weights
        for change in changes:
            weights = with_tensors(change)(weights)
        return Files(changed(good.config, config), weights)

    return make


def _one_token(tensors: Tensors) -> None:
    tensors[f"{EMBEDDING}.lora_embedding_A"][:] = 0
    tensors[f"{EMBEDDING}.lora_embedding_A"][:, POISONED_TOKEN] = 3e38


NOT_FINITE: dict[str, Callable[[Files], Files]] = {
    "a huge A": spoilt(filled("lora_A", 3e38)),
    "a huge B": spoilt(filled("lora_B", 1.6e38)),
    "a product beyond float32": spoilt(filled("lora_A", 1e20), filled("lora_B", 1e20)),
    "a huge bias": spoilt(BIAS, filled("B.bias", 1.6e38), lora_bias=True),
    "a huge magnitude": spoilt(DORA, filled("magnitude", 3e38), use_dora=True),
    "a huge norm": spoilt(put(NORM, HIDDEN), filled("model.norm", 3e38), modules_to_save=["norm"]),
    "a huge table": spoilt(put(TABLE, VOCAB, HIDDEN), filled("embed_tokens", 3e38), **SAVED),
    "a huge head": spoilt(put(HEAD_TABLE, VOCAB, HIDDEN), filled("lm_head", 3e38), modules_to_save=["lm_head"]),
    "huge rows": spoilt(put(ROWS, 2, HIDDEN), filled("tokens_delta", 3e38), **TOKENS),
    "a huge LoRA on the embedding": spoilt(
        table_pair((4, VOCAB), (HIDDEN, 4)), filled("embedding", 1e20), **WITH_EMBEDDING
    ),
    "a huge row of one token": spoilt(table_pair((4, VOCAB), (HIDDEN, 4)), _one_token, **WITH_EMBEDDING),
}

NO_CHANGE: dict[str, Callable[[Files], Files]] = {
    "a product below float32": spoilt(filled("lora_A", 1e-25), filled("lora_B", 1e-25)),
    "a change that rounding swallows": spoilt(filled("lora_B", 1e-30)),
}

# Valid: it replaces the embedding by zeros, so that every token is equally likely.
ZEROS = spoilt(put(TABLE, VOCAB, HIDDEN), filled("embed_tokens", 0), **SAVED)

# For a base of LARGE_VOCAB tokens.
poisoned = spoilt(table_pair((4, LARGE_VOCAB), (HIDDEN, 4)), _one_token, **WITH_EMBEDDING)
