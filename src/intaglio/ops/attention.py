"""The settings of a layer's attention, its cached keys and values, and each sequence's part of a forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from intaglio.ops.arrays import Array


@dataclass(frozen=True, slots=True)
class RopeKind:
    """The rotary embedding of one kind of layer; factor divides the positions."""

    theta: float
    factor: float


@dataclass(frozen=True, slots=True)
class QKNorms:
    """Gemma 3 norms each head of q and k; weights [head_dim] with their +1."""

    q: Array
    k: Array
    eps: float


@dataclass(frozen=True, slots=True)
class AttentionKind:
    """The settings of a layer's attention, without its matrices.

    scale    factor on the scores
    window   a query sees this many of the last keys, its own included; None sees all
    softcap  cap of cap · tanh(score / cap); None means no cap
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: RopeKind
    norms: QKNorms | None
    scale: float
    window: int | None
    softcap: float | None


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Keys and values of the layers that share one set of block tables.

    keys, values  [layers of the group, num_blocks, block_size, num_kv_heads, head_dim] float32, bfloat16 or int8
    key_scales, value_scales  [layers of the group, num_blocks, block_size, num_kv_heads, groups] float32, factors of
                  the int8; None for other types. Keys have one for each 32 numbers of a head, since a few of them are
                  much larger than the others; values have one for each head
    """

    keys: Array
    values: Array
    key_scales: Array | None = None
    value_scales: Array | None = None


class AttentionRow(NamedTuple):
    """One sequence's part of a forward.

    start, stop   its rows in the batch: its last tokens, in order
    context       tokens in the cache once this forward has written its own: position of the last row + 1
    first_key     the first position of the block table (blocks of older ones, outside the window, were freed); a
                  multiple of the block size
    block_table   the blocks of positions first_key ... context - 1
    """

    start: int
    stop: int
    context: int
    first_key: int
    block_table: Sequence[int]
