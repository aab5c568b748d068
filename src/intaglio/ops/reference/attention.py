"""Attention of sequences over their cached keys and values, and the rotation of heads, in plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from intaglio.ops import GROUP, Array, AttentionKind, AttentionRow, KVGroup

F32 = npt.NDArray[np.float32]

SMALLEST = 1e-36  # groups whose magnitudes are all below it become zeros: 127 / x would be more than a float32 holds


def rotated(x: F32, positions: npt.NDArray[np.integer[Any]], theta: float, factor: float) -> F32:
    """Rotate pairs (i, i + dim/2) of the last axis; x [tokens, heads, head_dim]."""
    half = x.shape[-1] // 2
    # The angles are computed in float64 and rounded once: float32 powers would change more than their last bit.
    inverse_frequency = np.power(theta, -np.arange(half, dtype=np.float64) / half) / factor
    angles = positions[:, None].astype(np.float64) * inverse_frequency  # [tokens, half]
    cos = np.cos(angles).astype(np.float32)[:, None, :]
    sin = np.sin(angles).astype(np.float32)[:, None, :]
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def store(cache: KVGroup, layer: int, row: AttentionRow, k: F32, v: F32) -> None:
    """Write the keys and values of a sequence's new tokens into its blocks, rounded to the cache's type."""
    block_size = cache.keys.shape[2]
    table = np.asarray(row.block_table, dtype=np.int32)
    held = np.arange(row.context - (row.stop - row.start), row.context) - row.first_key
    blocks, places = table[held // block_size], held % block_size
    for x, stored, scales in ((k, cache.keys, cache.key_scales), (v, cache.values, cache.value_scales)):
        if scales is None:
            stored[layer, blocks, places] = x
        else:
            stored[layer, blocks, places], scales[layer, blocks, places] = _to_int8(x, scales.shape[-1])


def paged_attention(q: F32, cache: KVGroup, layer: int, plan: Sequence[AttentionRow], kind: AttentionKind) -> F32:
    """Attention of each sequence's rows over its own blocks: [tokens, heads, head_dim] like q.

    Each query has its own product with exactly the keys that it sees: a matrix product over several queries would round
    a query differently depending on how its prompt is split into chunks.
    """
    out = np.empty_like(q)
    for row in plan:
        held = row.context - row.first_key
        keys = _gather(cache.keys, cache.key_scales, layer, row.block_table, held)
        values = _gather(cache.values, cache.value_scales, layer, row.block_table, held)
        for index in range(row.start, row.stop):
            end = held - (row.stop - 1 - index)  # of the keys that the query sees
            start = 0 if kind.window is None else max(0, end - kind.window)
            out[index] = _attend(q[index], keys[start:end], values[start:end], kind.scale, kind.softcap)
    return out


def _gather(stored: Array, scales: Array | None, layer: int, table: Sequence[int], count: int) -> F32:
    """The first `count` cached vectors of the listed blocks: [count, kv_heads, head_dim]."""
    blocks = np.asarray(table, dtype=np.int32)
    gathered: F32 = stored[layer, blocks].astype(np.float32)
    if scales is not None:
        gathered *= _of_each_number(scales[layer, blocks], gathered.shape[-1])
    return gathered.reshape(-1, *gathered.shape[2:])[:count]


def _of_each_number(scales: F32, dim: int) -> F32:
    """[..., groups] -> [..., dim]: a value has one group, a key one for each 32 numbers."""
    return np.repeat(scales, dim if scales.shape[-1] == 1 else GROUP, axis=-1)[..., :dim]


def _to_int8(x: F32, groups: int) -> tuple[npt.NDArray[np.int8], F32]:
    """Each group as int8, with its scale: x [tokens, heads, dim] -> the same shape, [tokens, heads, groups].

    A group with an infinity or a NaN gets the scale NaN, so that what attends to it is NaN.
    """
    dim = x.shape[-1]
    size = dim if groups == 1 else GROUP
    padded = np.zeros((*x.shape[:-1], groups * size), np.float32)
    padded[..., :dim] = x
    largest = np.abs(padded).reshape(*x.shape[:-1], groups, size).max(axis=-1)
    is_usable = np.isfinite(largest) & (largest >= SMALLEST)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=is_usable)
    scales = np.where(is_usable, largest / np.float32(127), np.where(np.isfinite(largest), 0, np.nan))
    with np.errstate(invalid="ignore"):  # infinity times 0
        scaled = np.where(_of_each_number(is_usable, dim), x * _of_each_number(inverse, dim), 0)
    return np.rint(scaled).astype(np.int8), scales.astype(np.float32)


def _attend(q: F32, keys: F32, values: F32, scale: float, softcap: float | None) -> F32:
    """One query [heads, dim] over the keys and values [keys, kv_heads, dim] that it sees: [heads, dim]."""
    grouped = q.reshape(keys.shape[1], -1, q.shape[1])  # heads that share keys are adjacent
    scores = softcapped(grouped @ keys.transpose(1, 2, 0) * np.float32(scale), softcap)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed: F32 = (weights @ values.transpose(1, 0, 2)).reshape(q.shape)
    return mixed


def softcapped(x: F32, cap: float | None) -> F32:
    """cap · tanh(x / cap); None leaves x as it is."""
    if cap is None:
        return x
    capped: F32 = np.tanh(x / np.float32(cap)) * np.float32(cap)
    return capped
