"""Keys and values in a cache of any type, written and read without the code under test."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from intaglio.ops import KVFormat, KVGroup

F32 = NDArray[np.float32]

KEY_GROUP = 32  # numbers of an int8 key that share a scale
KV_FORMATS: tuple[KVFormat, ...] = get_args(KVFormat)


def rounded(x: F32, fmt: KVFormat, group: int) -> F32:
    """x [..., dim] as a cache of the format gives it back; `group` numbers share a scale."""
    if fmt == "f32":
        return x
    if fmt == "bf16":
        return x.astype(ml_dtypes.bfloat16).astype(np.float32)
    return times_scales(*to_int8(x, group), group)


def to_int8(x: F32, group: int) -> tuple[NDArray[np.int8], F32]:
    """127ths of the largest magnitude of each group of a head, one number after the other."""
    heads = x.reshape(-1, x.shape[-1])
    starts = range(0, heads.shape[1], group)
    whole, scales = np.zeros(heads.shape, np.int8), np.zeros((len(heads), len(starts)), np.float32)
    for (index, head), (place, start) in product(enumerate(heads), enumerate(starts)):
        part = head[start : start + group]
        if not np.isfinite(part).all():
            scales[index, place] = np.nan
        elif np.abs(part).max() >= 1e-36:
            largest = np.abs(part).max()
            scales[index, place] = largest / np.float32(127)
            whole[index, start : start + group] = [
                round(float(number * (np.float32(127) / largest))) for number in part
            ]
    return whole.reshape(x.shape), scales.reshape(*x.shape[:-1], len(starts))


def times_scales(whole: NDArray[np.int8], scales: F32, group: int) -> F32:
    x: F32 = whole.astype(np.float32)
    for place, start in enumerate(range(0, x.shape[-1], group)):
        x[..., start : start + group] *= scales[..., place : place + 1]
    return x


def fill(cache: KVGroup, place: Any, keys: F32 | float, values: F32 | float) -> None:
    """Write keys and values [..., kv_heads, dim] at a place of the cache, an index of its first axes."""
    dim = cache.keys.shape[-1]
    for x, stored, scales, group in (
        (keys, cache.keys, cache.key_scales, KEY_GROUP),
        (values, cache.values, cache.value_scales, dim),
    ):
        if scales is None:
            stored[place] = x
        else:
            shape = (*scales[place].shape[:-1], dim)
            stored[place], scales[place] = to_int8(np.broadcast_to(np.asarray(x, np.float32), shape), group)


def widened(cache: KVGroup) -> tuple[F32, F32]:
    """Keys and values of a cache as float32."""
    if cache.key_scales is None or cache.value_scales is None:
        return cache.keys.astype(np.float32), cache.values.astype(np.float32)
    return (
        times_scales(cache.keys, cache.key_scales, KEY_GROUP),
        times_scales(cache.values, cache.value_scales, cache.values.shape[-1]),
    )
