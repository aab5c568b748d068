"""What the golden files hold and how they are read: one list of models, prompts and adapters for maker and tests.

Weights are not stored: they come from a NumPy seed, and their checksum is stored, so that a change in how they are made
says so instead of failing as a wrong logit. Adapters are stored as PEFT wrote them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tests.helpers.checkpoints import Family, Weights, random_weights, tiny_config

F32 = NDArray[np.float32]

FOLDER = Path(__file__).parent
NUM_TOKENS = 40  # five times the tiny models' window of 8

SEEDS: dict[Family, int] = {"gemma": 11, "gemma2": 12, "gemma3_text": 13}

# Adapters of one tiny model, in the order of the rows of PEFT's mixed batch: some twice, base rows between.
BASE = "__base__"  # PEFT's own name for a row without adapter
MIXED: dict[Family, tuple[str, ...]] = {
    "gemma": ("rs_patterns", BASE, "q_v", "all_linear", "two_layers", "rs_patterns", "regex", BASE, "q_v"),
    "gemma3_text": ("rs_patterns", "two_layers", BASE, "q_v", "rs_patterns"),
}
MIXED_ROWS = (0, 1, 2, 5, 11, 17, 23, 31, 39)

# Adapters that are more than matrices beside the projections, each alone: PEFT's mixed batch does not take them all.
# "untied" is a Gemma 1 whose head has a table of its own.
Base = Family | Literal["untied"]
WHOLE: dict[Base, tuple[str, ...]] = {
    "gemma": ("dora", "bias", "tokens"),
    "gemma2": ("embedding_and_head", "tied", "tokens_apart"),
    "gemma3_text": ("norms", "saved_embedding", "tokens_under_head"),
    "untied": ("tokens", "saved_head", "embedding"),
}

# The real model: rows around its window of 512, and of each row enough values to tell any difference by.
BIG_ROWS = (5, 300, 511, 512, 513, 600, 699)
BIG_TOP = 64
BIG_COLUMN_STEP = 97


def tiny_model(family: Family) -> tuple[dict[str, Any], Weights]:
    """config.json and weights of the tiny model whose logits are stored."""
    config = tiny_config(family)
    return config, random_weights(config, SEEDS[family])


def untied_model() -> tuple[dict[str, Any], Weights]:
    """The tiny Gemma 1 with another table for its head."""
    config = tiny_config("gemma", tie_word_embeddings=False, vocab_size=256)
    return config, random_weights(config, SEEDS["gemma"] + 1)


def checksum(weights: Mapping[str, F32]) -> str:
    """SHA-256 over names and values."""
    state = hashlib.sha256()
    for name in sorted(weights):
        state.update(name.encode())
        state.update(np.ascontiguousarray(weights[name], "<f4"))
    return state.hexdigest()


def adapter_folder(base: Base, name: str) -> Path:
    return FOLDER / f"adapters_{base}" / name


def load(name: str) -> dict[str, NDArray[Any]]:
    """The arrays of one golden file."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def tiny_tolerance(logits: F32) -> float:
    """Largest difference allowed between two float32 computations of a tiny model's logits.

    Measured between transformers and float64: 1e-5 at logits up to 5, in proportion above. Ten times that.
    """
    return 1e-4 * max(1.0, float(np.abs(logits).max()) / 5)


BIG_TOLERANCE = 1e-3  # the same for the 270M, whose logits reach 71; measured 3e-4 over 700 tokens


def big_distance(logits: F32, golden: Mapping[str, NDArray[Any]], num_rows: int = len(BIG_ROWS)) -> float:
    """Largest difference over the stored values of the first `num_rows` stored rows."""
    top_ids = golden["top_ids"][:num_rows]
    columns = np.abs(logits[:, ::BIG_COLUMN_STEP] - golden["columns"][:num_rows])
    top = np.abs(np.take_along_axis(logits, top_ids, axis=-1) - golden["top_logits"][:num_rows])
    return float(max(columns.max(), top.max()))


def check_big(logits: F32, golden: Mapping[str, NDArray[Any]]) -> None:
    """Every stored value of every stored row, the ids of the best, and the mean and norm of what was not stored."""
    assert big_distance(logits, golden) <= BIG_TOLERANCE
    assert logits.argmax(axis=-1).tolist() == golden["top_ids"][:, 0].tolist()
    np.testing.assert_allclose(logits.mean(axis=-1, dtype=np.float64), golden["mean"], rtol=0, atol=1e-4)
    norm = np.sqrt(np.square(logits, dtype=np.float64).sum(axis=-1))
    np.testing.assert_allclose(norm, golden["norm"], rtol=1e-5)


def check_bfloat16(logits: F32, expected: F32, least_agreement: float = 0.98) -> None:
    """Limits for anything rounded to bfloat16: never a largest difference, since single values of a row go far off.

    least_agreement  share of rows whose best token is the same
    """
    assert np.abs(logits - expected).mean() <= 0.025 * expected.std()
    assert (logits.argmax(axis=-1) == expected.argmax(axis=-1)).mean() >= least_agreement
    log_p, log_q = _log_softmax(expected), _log_softmax(logits)
    assert (np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean() <= 5e-3


def _log_softmax(logits: F32) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
