"""A table in an adapter's file is the base's own, to a rounding or a quantization, or the file is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from intaglio.errors import AdapterError
from intaglio.lora.peft.base_tables import BaseTable, check_is_base, checkpoint_tables
from intaglio.lora.peft.safetensors_file import SafetensorsFile
from tests.helpers.checkpoints import random_weights, tiny_config, write_gguf, write_hf_folder

F32 = NDArray[np.float32]

VOCAB, HIDDEN = 300, 64
QUANTIZED = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
# What a row has to be moved by, in parts of its length, to stand out beside the quantization.
STANDS_OUT = {"Q8_0": 0.015, "Q5_1": 0.08, "Q5_0": 0.08, "Q4_1": 0.15, "Q4_0": 0.16}
NAME = "model.embed_tokens.base_layer.weight"


def table(seed: int = 0, hidden: int = HIDDEN) -> F32:
    """Rows of very different lengths, and among their values some that are far larger than the rest."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.standard_normal((VOCAB, 1))).astype(np.float32)
    return (rng.standard_t(4, (VOCAB, hidden)).astype(np.float32) * 0.05 * lengths).astype(np.float32)


def in_memory(values: F32, *, is_quantized: bool = False) -> BaseTable:
    def blocks() -> Iterator[F32]:
        for first in range(0, len(values), 77):
            yield values[first : first + 77]

    return BaseTable((values.shape[0], values.shape[1]), is_quantized, blocks)


def check(tmp_path: Path, saved: NDArray[np.generic], base: BaseTable) -> None:
    save_file({NAME: np.ascontiguousarray(saved)}, tmp_path / "saved.safetensors")
    with SafetensorsFile(tmp_path / "saved.safetensors", 10**9) as file:
        check_is_base(file, NAME, base, "saved.safetensors")


def moved(values: F32, rows: list[int], share: float) -> F32:
    """Some rows trained: each is off by this part of its length, in all directions."""
    step = np.random.default_rng(9).standard_normal((len(rows), values.shape[1])).astype(np.float32)
    trained = values.copy()
    lengths = np.linalg.norm(values[rows], axis=1, keepdims=True) / np.linalg.norm(step, axis=1, keepdims=True)
    trained[rows] += step * lengths * np.float32(share)
    return trained


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("base_dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_bases_own_table_is_known_in_every_type(tmp_path: Path, dtype: type, base_dtype: type) -> None:
    check(tmp_path, table().astype(dtype), in_memory(table().astype(base_dtype).astype(np.float32)))


@pytest.mark.parametrize("share", [0.005, 0.05, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_one_trained_row_is_told_from_rounding(tmp_path: Path, share: float, dtype: type) -> None:
    trained = moved(table(), [123], share).astype(dtype)
    with pytest.raises(AdapterError, match=r"1 of 300 rows .* token 123\b"):
        check(tmp_path, trained, in_memory(table()))


def test_another_models_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"300 of 300 rows differ"):
        check(tmp_path, table(1), in_memory(table()))
    with pytest.raises(AdapterError, match=r"300 of 300 rows differ"):
        check(tmp_path, table(1), in_memory(table(), is_quantized=True))
    check(tmp_path, np.zeros_like(table()), in_memory(np.zeros_like(table())))


@pytest.mark.parametrize("is_quantized", [False, True])
def test_a_resized_vocabulary_is_refused_with_what_to_do(tmp_path: Path, is_quantized: bool) -> None:
    with pytest.raises(AdapterError, match=r"shape \[303, 64\]; .* \[300, 64\]\. .*trainable_token_indices"):
        grown = np.vstack([table(), table()[:3]])
        check(tmp_path, grown, in_memory(table(), is_quantized=is_quantized))


@pytest.fixture(scope="module")
def write_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[F32, str], Path]:
    """A GGUF file whose embedding is this table, in this type."""
    folder = tmp_path_factory.mktemp("gguf")
    config = tiny_config("gemma", vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=1)
    weights = random_weights(config)

    def write(values: F32, kind: str) -> Path:
        path = folder / f"{kind}.gguf"
        if not path.exists():
            write_gguf(
                path, config, {**weights, "model.embed_tokens.weight": values}, {"model.embed_tokens.weight": kind}
            )
        return path

    return write


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_quantized_base_is_known_by_the_table_it_was_made_from(
    tmp_path: Path, write_base: Callable[[F32, str], Path], kind: str
) -> None:
    base = checkpoint_tables(write_base(table(), kind))("embed_tokens")
    assert base.is_quantized
    check(tmp_path, table(), base)
    check(tmp_path, table().astype(ml_dtypes.bfloat16), base)
    check(tmp_path, np.concatenate(list(base.blocks())), base)  # trained on what is served


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_trained_row_stands_out_beside_a_quantized_base(
    tmp_path: Path, write_base: Callable[[F32, str], Path], kind: str
) -> None:
    base = checkpoint_tables(write_base(table(), kind))("embed_tokens")
    with pytest.raises(AdapterError, match=r"2 of 300 rows .* token 7\b"):
        check(tmp_path, moved(table(), [7, 250], 2 * STANDS_OUT[kind]), base)
    # Trained on the quantized table itself, nothing hides a row.
    served = np.concatenate(list(base.blocks()))
    with pytest.raises(AdapterError, match=r"1 of 300 rows .* token 7\b"):
        check(tmp_path, moved(served, [7], 0.01), base)


def test_a_head_of_its_own_is_another_table_and_a_tied_one_is_the_same(tmp_path: Path) -> None:
    for tied in (True, False):
        config = tiny_config("gemma2", tie_word_embeddings=tied)
        weights = random_weights(config, 3)
        tables = checkpoint_tables(write_hf_folder(tmp_path / str(tied), config, weights, "bfloat16"))
        head = weights["model.embed_tokens.weight" if tied else "lm_head.weight"]
        check(tmp_path, head, tables("lm_head"))
        check(tmp_path, weights["model.embed_tokens.weight"], tables("embed_tokens"))
        if not tied:
            with pytest.raises(AdapterError, match="not a copy of the base's table"):
                check(tmp_path, head, tables("embed_tokens"))
