"""Keys and values in a cache of any type, written and read without the code under test."""

from __future__ import annotations

from typing import Any, get_args

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from intaglio.ops import Array, KVFormat, KVGroup

F32 = NDArray[np.float32]

KV_FORMATS: tuple[KVFormat, ...] = get_args(KVFormat)


def rounded(x: F32, fmt: KVFormat) -> F32:
    """x [..., dim] as a cache of the format gives it back."""
    if fmt == "f32":
        return x
    if fmt == "bf16":
        return x.astype(ml_dtypes.bfloat16).astype(np.float32)
    whole, scales = to_int8(x)
    return whole * scales[..., None]


def to_int8(x: F32) -> tuple[NDArray[np.int8], F32]:
    """127ths of the largest magnitude of each head, one number after the other."""
    heads = x.reshape(-1, x.shape[-1])
    whole, scales = np.zeros(heads.shape, np.int8), np.zeros(len(heads), np.float32)
    for index, head in enumerate(heads):
        if not np.isfinite(head).all():
            scales[index] = np.nan
        elif np.abs(head).max() >= 1e-36:
            largest = np.abs(head).max()
            scales[index] = largest / np.float32(127)
            whole[index] = [round(float(number * (np.float32(127) / largest))) for number in head]
    return whole.reshape(x.shape), scales.reshape(x.shape[:-1])


def fill(cache: KVGroup, place: Any, keys: F32 | float, values: F32 | float) -> None:
    """Write keys and values [..., kv_heads, dim] at a place of the cache, an index of its first axes."""
    for x, stored, scales in ((keys, cache.keys, cache.key_scales), (values, cache.values, cache.value_scales)):
        if scales is None:
            stored[place] = x
        else:
            shape = (*scales[place].shape, stored.shape[-1])
            stored[place], scales[place] = to_int8(np.broadcast_to(np.asarray(x, np.float32), shape))


def widened(stored: Array, scales: Array | None) -> F32:
    """Keys or values of a cache as float32."""
    x: F32 = stored.astype(np.float32)
    return x if scales is None else x * scales[..., None]
