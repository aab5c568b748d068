"""Checks whether a table in an adapter's file is a copy of the base's own.

PEFT saves the whole embedding, or head, of the base together with a LoRA on it, and with any adapter whose vocabulary
was resized (`save_embedding_layers`). A copy of the base's own table is skipped. Any other table changes what the
adapter computes, so it is refused.

A copy need not have the same bits. Float32 values of the training may be saved, or served, in bfloat16 or float16: then
each value is equal up to rounding. If the served base is a quantized copy of the one used in training, no value is
equal, but the quantization error of a row, relative to the largest value of each 32, is about the same in all rows of a
table (measured from Q8_0 to Q4_0: at most 1.3 times the median). So a trained row is detected if training changed it
about as much as the quantization did: by 1.5 % of its length with Q8_0, 15 % with Q4_0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import AdapterError
from intaglio.lora.peft.safetensors_file import TensorFile
from intaglio.lora.peft.tensor_names import EMBEDDING
from intaglio.model.weights import RawTensor, open_checkpoint
from intaglio.model.weights.dequantize import dequantize
from intaglio.model.weights.formats import TYPE_BY_NAME
from intaglio.model.weights.names import EMBEDDING as EMBEDDING_TENSOR
from intaglio.model.weights.names import HEAD as HEAD_TENSOR

F32 = NDArray[np.float32]

_BLOCK_ELEMENTS = 1 << 20  # of a table, in memory at a time
_GROUP = 32  # neighbours that share a scale in most quantized types

_ROUNDING = 2.0**-8  # bfloat16 keeps eight bits: half of the last one, twice
_SMALLEST = 2.0**-24  # float16 has no finer steps
# Distance of a row from the quantized base, relative to the largest value of each 32:
_MAX_OVER_MEDIAN = 1.5  # of one row, times the table's median; measured at most 1.3
_MAX_MEDIAN = 0.06  # of a table; measured 0.036 for four bits

_EXACT_TYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class BaseTable:
    """The embedding or head of a base model.

    shape   (vocabulary, hidden size)
    blocks  gives all rows as float32, some [n, hidden] at a time
    """

    shape: tuple[int, int]
    is_quantized: bool
    blocks: Callable[[], Iterator[F32]]


BaseTables = Callable[[str], BaseTable]  # "embed_tokens" or "lm_head" -> the table of that path


def checkpoint_tables(path: Path) -> BaseTables:
    """The tables of a checkpoint, which is opened at each call. A call raises ModelFormatError if it is invalid."""

    def table(name: str) -> BaseTable:
        with open_checkpoint(path) as checkpoint:
            is_tied = HEAD_TENSOR not in checkpoint.names()
            raw = checkpoint.raw(EMBEDDING_TENSOR if name == EMBEDDING or is_tied else HEAD_TENSOR)
        return BaseTable((raw.shape[0], raw.shape[1]), raw.dtype not in _EXACT_TYPES, lambda: _blocks(raw))

    return table


def _blocks(raw: RawTensor) -> Iterator[F32]:
    num_rows, hidden = raw.shape
    row_bytes = TYPE_BY_NAME[raw.dtype].row_bytes(hidden)
    step = max(1, _BLOCK_ELEMENTS // hidden)
    for first in range(0, num_rows, step):
        last = min(first + step, num_rows)
        data = raw.data[first * row_bytes : last * row_bytes]
        yield dequantize(RawTensor(raw.name, raw.dtype, (last - first, hidden), data))


def check_is_base(file: TensorFile, tensor: str, base: BaseTable, label: str) -> None:
    """Raise AdapterError naming the rows that differ, unless a tensor of the file is a copy of the base's table."""
    shape = file.entries[tensor].shape
    if shape != base.shape:
        raise AdapterError(
            f"{label}: tensor {tensor!r} is a table of the base with shape {list(shape)}; the base model here has "
            f"{list(base.shape)}. The vocabulary was resized, or the adapter was trained on another model: train "
            "without resizing it, new tokens with trainable_token_indices in place of unused ones"
        )
    rounded, distances = _compare(file, tensor, base)
    wrong = ~rounded
    if base.is_quantized and wrong.mean() > 0.5:
        median = float(np.median(distances))
        wrong = distances > (_MAX_OVER_MEDIAN * median if median <= _MAX_MEDIAN else 0.0)
    if wrong.any():
        ids = np.flatnonzero(wrong)
        raise AdapterError(
            f"{label}: tensor {tensor!r} is not a copy of the base's table: {ids.size} of {shape[0]} rows differ, the "
            f"first is that of token {ids[0]}. If the table was trained, name it in modules_to_save; if it was not, "
            "the adapter belongs to another base, or save it again with save_embedding_layers=False"
        )


def _compare(file: TensorFile, tensor: str, base: BaseTable) -> tuple[NDArray[np.bool_], F32]:
    """For each row: whether it is equal up to rounding, and its distance relative to the largest value of each 32."""
    num_rows, hidden = base.shape
    rounded, distances = np.empty(num_rows, np.bool_), np.empty(num_rows, np.float32)
    groups = np.arange(0, hidden, _GROUP)
    sizes = np.diff([*groups, hidden]).astype(np.float32)
    first = 0
    for block in base.blocks():
        last = first + len(block)
        difference = np.abs(file.read_rows(tensor, first, last) - block)
        rounded[first:last] = (difference <= np.abs(block) * np.float32(_ROUNDING) + np.float32(_SMALLEST)).all(axis=1)
        largest = np.maximum.reduceat(np.abs(block), groups, axis=1)
        scale = np.sqrt(np.square(largest) @ sizes)
        length = np.sqrt(np.einsum("ij,ij->i", difference, difference))
        with np.errstate(divide="ignore", invalid="ignore"):
            distances[first:last] = np.where(length > 0, length / scale, 0)
        first = last
    return rounded, distances
