"""Memory that models, their windows and the program need, before anything is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from intaglio.model.config import ModelConfig
from intaglio.model.footprint import Footprint, weights_footprint
from intaglio.model.packed import packed_key, packed_path
from intaglio.model.quantize import WeightFormat
from intaglio.model.weights import open_checkpoint
from intaglio.ops import KVFormat
from intaglio.ops.cached_values import token_bytes
from intaglio.settings import Settings

PROGRAM_BYTES = 300 * 10**6  # Python, libraries, and the arrays of one piece besides its logits


def footprint(path: Path, settings: Settings, fmt: WeightFormat, layout: str, *, uses_packed: bool) -> Footprint:
    """Of a checkpoint in a format. uses_packed: whether an earlier load's packed file is mapped, if there is one."""
    with open_checkpoint(path) as checkpoint:
        tensors = {name: checkpoint.info(name) for name in checkpoint.names()}
    is_packed = uses_packed and packed_path(settings.cache_path / "packed", packed_key(path, fmt, layout)).exists()
    return weights_footprint(tensors, fmt, widened=settings.kernels == "reference", is_packed=is_packed)


def add_footprints(found: Iterable[Footprint]) -> Footprint:
    """Of models that are loaded one after another, and all stay."""
    weights = loading = 0
    for one in found:
        weights, loading = weights + one.weights, max(loading, one.loading)
    return Footprint(weights, loading)


def cache_bytes(config: ModelConfig, num_tokens: int, kv_format: KVFormat) -> int:
    """Keys and values of one window."""
    return config.num_layers * num_tokens * token_bytes(kv_format, config.num_kv_heads, config.head_dim)
