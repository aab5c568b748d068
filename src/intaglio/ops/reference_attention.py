"""Attention of sequences over their cached keys and values, and the rotation of heads, in plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from intaglio.ops import AttentionKind, AttentionRow, KVGroup

F32 = npt.NDArray[np.float32]


def rotated(x: F32, positions: npt.NDArray[np.integer[Any]], theta: float, factor: float) -> F32:
    """Rotate pairs (i, i + dim/2) of the last axis; x [tokens, heads, head_dim]."""
    half = x.shape[-1] // 2
    # The angles are made in float64 and rounded once: float32 powers would move them by more than their last bit.
    inverse_frequency = np.power(theta, -np.arange(half, dtype=np.float64) / half) / factor
    angles = positions[:, None].astype(np.float64) * inverse_frequency  # [tokens, half]
    cos = np.cos(angles).astype(np.float32)[:, None, :]
    sin = np.sin(angles).astype(np.float32)[:, None, :]
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def store(cache: KVGroup, layer: int, row: AttentionRow, k: F32, v: F32) -> None:
    """Put the keys and values of a sequence's new tokens into its blocks."""
    block_size = cache.keys.shape[2]
    table = np.asarray(row.block_table, dtype=np.int32)
    held = np.arange(row.context - (row.stop - row.start), row.context) - row.first_key
    blocks, places = table[held // block_size], held % block_size
    cache.keys[layer, blocks, places], cache.values[layer, blocks, places] = k, v


def paged_attention(q: F32, cache: KVGroup, layer: int, plan: Sequence[AttentionRow], kind: AttentionKind) -> F32:
    """Of each sequence's rows over its own blocks: [tokens, heads, head_dim] like q."""
    out = np.empty_like(q)
    for row in plan:
        held = row.context - row.first_key
        keys = _gather(cache.keys[layer], row.block_table, held)
        values = _gather(cache.values[layer], row.block_table, held)
        key_positions = np.arange(row.first_key, row.context)
        query_positions = np.arange(row.context - (row.stop - row.start), row.context)
        visible = _visible(query_positions, key_positions, kind.window)
        rows = slice(row.start, row.stop)
        out[rows] = _attend(q[rows], keys, values, visible, kind.scale, kind.softcap)
    return out


def _gather(blocks: F32, table: Sequence[int], count: int) -> F32:
    """The first `count` cached vectors of the listed blocks: [count, kv_heads, head_dim]."""
    gathered = blocks[np.asarray(table, dtype=np.int32)]
    return gathered.reshape(-1, *blocks.shape[2:])[:count]


def _visible(queries: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], window: int | None) -> npt.NDArray[np.bool_]:
    """[queries, keys]: query p sees key j when p - window < j <= p."""
    distance = queries[:, None] - keys[None, :]
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)


def _attend(q: F32, keys: F32, values: F32, visible: npt.NDArray[np.bool_], scale: float, softcap: float | None) -> F32:
    tokens, heads, dim = q.shape
    kv_heads = keys.shape[1]
    # Heads that share keys stand together: [kv_heads, heads per key * tokens, dim].
    grouped = q.reshape(tokens, kv_heads, -1, dim).transpose(1, 2, 0, 3)
    scores = grouped.reshape(kv_heads, -1, dim) @ keys.transpose(1, 2, 0) * np.float32(scale)
    scores = softcapped(scores, softcap).reshape(kv_heads, -1, tokens, keys.shape[0])
    scores = np.where(visible, scores, np.float32(-np.inf))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = weights.reshape(kv_heads, -1, keys.shape[0]) @ values.transpose(1, 0, 2)
    out: F32 = mixed.reshape(kv_heads, -1, tokens, dim).transpose(2, 0, 1, 3).reshape(tokens, heads, dim)
    return out


def softcapped(x: F32, cap: float | None) -> F32:
    """cap · tanh(x / cap); None leaves x as it is."""
    if cap is None:
        return x
    capped: F32 = np.tanh(x / np.float32(cap)) * np.float32(cap)
    return capped
