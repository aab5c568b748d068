"""The arrays of the KV cache, the same in both backends: their types, and how many bytes a token takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from intaglio.ops import GROUP, Array, KVFormat, KVGroup

_SCALE_BYTES = 4  # float32
_DTYPES: dict[KVFormat, npt.DTypeLike] = {"f32": np.float32, "bf16": ml_dtypes.bfloat16, "int8": np.int8}


def token_bytes(fmt: KVFormat, kv_heads: int, head_dim: int) -> int:
    """Bytes of one token's keys and values in one layer."""
    scales = num_key_scales(head_dim) + 1 if fmt == "int8" else 0
    return kv_heads * (2 * head_dim * np.dtype(_DTYPES[fmt]).itemsize + _SCALE_BYTES * scales)


def num_key_scales(head_dim: int) -> int:
    """Scales of one head of an int8 key."""
    return -(-head_dim // GROUP)


def kv_group(
    shape: tuple[int, int, int, int, int], fmt: KVFormat, zeros: Callable[[tuple[int, ...], Any], Array]
) -> KVGroup:
    """An empty cache [layers, num_blocks, block_size, kv_heads, head_dim]; zeros(shape, dtype) makes its arrays."""
    keys, values = zeros(shape, _DTYPES[fmt]), zeros(shape, _DTYPES[fmt])
    if fmt != "int8":
        return KVGroup(keys, values)
    heads = shape[:-1]
    return KVGroup(keys, values, zeros((*heads, num_key_scales(shape[-1])), np.float32), zeros((*heads, 1), np.float32))


def copy_block(cache: KVGroup, source: int, target: int) -> None:
    """Make block `target` of every layer the same as block `source`, bit for bit."""
    for array in (cache.keys, cache.values, cache.key_scales, cache.value_scales):
        if array is not None:
            array[:, target] = array[:, source]
