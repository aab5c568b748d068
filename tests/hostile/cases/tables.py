"""Embedding and head: invalid whole tables, single rows and LoRA on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.hostile.case import HostileCase
from tests.hostile.cases.vectors_and_norms import HIDDEN, MODEL, TARGETS, both, extra, put, set_last
from tests.hostile.good_adapter import RANK, Tensors

VOCAB = 512
EMBEDDING, HEAD = f"{MODEL}.embed_tokens", "base_model.model.lm_head"
TABLE, HEAD_TABLE = f"{EMBEDDING}.weight", f"{HEAD}.weight"
ROWS, HEAD_ROWS = (f"{table}.token_adapter.trainable_tokens_delta" for table in (EMBEDDING, HEAD))
SAVED = {"modules_to_save": ["embed_tokens"]}
TOKENS = {"trainable_token_indices": [5, 7]}

TABLES = (
    extra(
        "a table of a larger vocabulary",
        "has shape .513, 48.; the base model needs .512, 48.",
        put(TABLE, VOCAB + 1, HIDDEN),
        **SAVED,
    ),
    extra("a table of a smaller vocabulary", "has shape .511, 48.", put(TABLE, VOCAB - 1, HIDDEN), **SAVED),
    extra("a transposed table", "has shape .48, 512.", put(TABLE, HIDDEN, VOCAB), **SAVED),
    extra("a flat table", "has shape .24576.", put(TABLE, VOCAB * HIDDEN), **SAVED),
    extra(
        "a table with NaN",
        "embed_tokens.weight' holds values that are NaN",
        put(TABLE, VOCAB, HIDDEN),
        set_last(TABLE, np.nan),
        alone=True,
        **SAVED,
    ),
    extra(
        "a table that is not there",
        "holds no weights of 'lm_head'",
        put(TABLE, VOCAB, HIDDEN),
        modules_to_save=["embed_tokens", "lm_head"],
    ),
    extra(
        "a table of the head for the embedding",
        "lm_head.weight'|holds no weights of 'embed_tokens'",
        put(HEAD_TABLE, VOCAB, HIDDEN),
        **SAVED,
    ),
    extra(
        "a table under two spellings",
        "the same one under two spellings",
        both(put(TABLE, VOCAB, HIDDEN), put("model.embed_tokens.weight", VOCAB, HIDDEN)),
        alone=True,
        **SAVED,
    ),
    extra(
        "a table that must be tied and is not there twice",
        "ensure_weight_tying is on, but only embed_tokens was saved",
        put(TABLE, VOCAB, HIDDEN),
        ensure_weight_tying=True,
        **SAVED,
    ),
    extra(
        "tied tables that differ",
        "ensure_weight_tying is on, but what .* differs",
        both(put(TABLE, VOCAB, HIDDEN), put(HEAD_TABLE, VOCAB, HIDDEN)),
        set_last(TABLE, 2.0),
        ensure_weight_tying=True,
        **SAVED,
    ),
    extra(
        "a table and rows of it",
        "embed_tokens|trainable_token_indices",
        both(put(TABLE, VOCAB, HIDDEN), put(ROWS, 2, HIDDEN)),
        **SAVED,
        **TOKENS,
    ),
    extra(
        "a table and a LoRA on it",
        "embed_tokens",
        both(
            put(TABLE, VOCAB, HIDDEN),
            put(f"{EMBEDDING}.lora_embedding_A", RANK, VOCAB),
            put(f"{EMBEDDING}.lora_embedding_B", HIDDEN, RANK),
        ),
        target_modules=[*TARGETS, "embed_tokens"],
        **SAVED,
    ),
)

TOKEN_ROWS = (
    extra(
        "a row too many",
        "has 3 rows; trainable_token_indices in adapter_config.json names 2 tokens",
        put(ROWS, 3, HIDDEN),
        **TOKENS,
    ),
    extra(
        "a row too few",
        "has 1 rows; trainable_token_indices in adapter_config.json names 2 tokens",
        put(ROWS, 1, HIDDEN),
        **TOKENS,
    ),
    extra("rows of another width", "trainable_tokens_delta' has shape .2, 49.", put(ROWS, 2, 49), **TOKENS),
    extra("rows that are one", "trainable_tokens_delta' has shape .96.", put(ROWS, 2 * HIDDEN), **TOKENS),
    extra(
        "rows with NaN",
        "trainable_tokens_delta' holds values that are NaN",
        put(ROWS, 2, HIDDEN),
        set_last(ROWS, np.nan),
        alone=True,
        **TOKENS,
    ),
    extra(
        "a row of a token past the last",
        "names token 512; the base model has 512",
        put(ROWS, 2, HIDDEN),
        trainable_token_indices=[5, 512],
    ),
    extra(
        "a row of a token far past the last",
        "names token 2147483647; the base model has 512",
        put(ROWS, 2, HIDDEN),
        trainable_token_indices=[5, 2147483647],
    ),
    extra(
        "rows of no table",
        "trainable_token_indices names 'norm'",
        put(ROWS, 1, HIDDEN),
        trainable_token_indices={"embed_tokens": [5], "norm": [6]},
    ),
    extra(
        "rows of the head that the config has for the embedding",
        "rows|trainable_token",
        put(HEAD_ROWS, 2, HIDDEN),
        **TOKENS,
    ),
    extra(
        "rows of the head that are not there",
        "holds no rows of lm_head",
        put(ROWS, 2, HIDDEN),
        trainable_token_indices={"embed_tokens": [5, 7], "lm_head": [9]},
    ),
)


def table_pair(a: tuple[int, int], b: tuple[int, int], table: str = EMBEDDING) -> Callable[[Tensors], None]:
    suffixes = ("lora_embedding_A", "lora_embedding_B") if table == EMBEDDING else ("lora_A.weight", "lora_B.weight")
    return both(put(f"{table}.{suffixes[0]}", *a), put(f"{table}.{suffixes[1]}", *b))


WITH_EMBEDDING, WITH_HEAD = {"target_modules": [*TARGETS, "embed_tokens"]}, {"target_modules": [*TARGETS, "lm_head"]}

PAIRS_OF_TABLES = (
    extra(
        "a LoRA on the embedding that the config does not know",
        "does not adapt model.embed_tokens",
        table_pair((RANK, VOCAB), (HIDDEN, RANK)),
    ),
    extra(
        "a LoRA on the head that the config does not know",
        "does not adapt lm_head",
        table_pair((RANK, HIDDEN), (VOCAB, RANK), HEAD),
    ),
    extra(
        "a LoRA on an embedding of another vocabulary",
        "shape .4, 513.; the base model needs .rank, 512.",
        table_pair((RANK, VOCAB + 1), (HIDDEN, RANK)),
        **WITH_EMBEDDING,
    ),
    extra(
        "a LoRA on a head of another vocabulary",
        "shape .513, 4.; the base model needs .512, rank.",
        table_pair((RANK, HIDDEN), (VOCAB + 1, RANK), HEAD),
        **WITH_HEAD,
    ),
    extra(
        "a LoRA on the embedding the wrong way round",
        "the base model needs",
        table_pair((RANK, HIDDEN), (VOCAB, RANK)),
        **WITH_EMBEDDING,
    ),
    extra(
        "a LoRA on the embedding of another rank",
        "has rank 3; .* rank 4",
        table_pair((3, VOCAB), (HIDDEN, 3)),
        **WITH_EMBEDDING,
    ),
    extra(
        "a LoRA on the head that must be tied",
        "ensure_weight_tying is on, but only one",
        table_pair((RANK, HIDDEN), (VOCAB, RANK), HEAD),
        ensure_weight_tying=True,
        **WITH_HEAD,
    ),
    extra(
        "rows that a LoRA on the head takes beyond float32",
        "lm_head, rows of .*trainable_tokens_delta' exceed float32",
        both(table_pair((RANK, HIDDEN), (VOCAB, RANK), HEAD), put(ROWS, 2, HIDDEN)),
        lambda tensors: [tensors[name].fill(1e20) for name in tensors if "lm_head.lora" in name],
        **WITH_HEAD,
        **TOKENS,
    ),
    extra(
        "a LoRA on the embedding with NaN",
        "lora_embedding_A' holds values that are NaN",
        table_pair((RANK, VOCAB), (HIDDEN, RANK)),
        set_last(f"{EMBEDDING}.lora_embedding_A", np.nan),
        alone=True,
        **WITH_EMBEDDING,
    ),
    extra(
        "a bias of the embedding",
        "lora_embedding_B.bias' is not a LoRA weight",
        table_pair((RANK, VOCAB), (HIDDEN, RANK)),
        put(f"{EMBEDDING}.lora_embedding_B.bias", HIDDEN),
        alone=True,
        **WITH_EMBEDDING,
    ),
)

CASES: tuple[HostileCase, ...] = TABLES + TOKEN_ROWS + PAIRS_OF_TABLES
