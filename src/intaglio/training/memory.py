"""The memory that a training needs, computed from shapes before anything is loaded."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from intaglio.errors import NotEnoughMemoryError
from intaglio.model.config import ModelConfig
from intaglio.training.dtypes import ITEM_BYTES, BaseDtype
from intaglio.training.loss import POSITIONS
from intaglio.training.options import TrainingOptions

_GB = 1e9
_LOADING = 5.2  # bytes for each weight of the largest matrix while it is read from a quantized file and rounded
_STATE = 16  # bytes for each trained weight: the weight, its gradient and AdamW's two averages, in float32
_LOGITS = 12  # bytes for each logit that exists at a time: the logit, its logarithm and its gradient
_EXTRAS = 2.2  # factor on the activations for DoRA or dropout
_LIBRARIES = 500_000_000  # torch, transformers and PEFT themselves

# Bytes that one token stores in one layer for the backward pass, per unit of a width. Counted with torch's hooks
# on saved tensors; tests/training/test_memory.py counts again.
_PER_HIDDEN: dict[BaseDtype, int] = {"float32": 16, "bfloat16": 28}
_PER_HIDDEN_OF_POST_NORMS = 8
_PER_INTERMEDIATE: dict[BaseDtype, int] = {"float32": 16, "bfloat16": 10}
_PER_QUERY, _PER_QUERY_NORM = 8, 12
_PER_KEY = 8
_PER_SCORE = 9  # of attention that is not fused, as for scores with a soft cap
_PER_MASKED = 4  # keys of a mask
_PER_RANK = 28


@dataclass(frozen=True, slots=True)
class Available:
    """size_bytes: how many bytes may be used; bound: what sets that limit, for messages."""

    size_bytes: int = sys.maxsize
    bound: str = "no limit is known"


@dataclass(frozen=True, slots=True)
class BatchShape:
    """The widest batch: its examples, and the tokens of the longest one."""

    rows: int
    width: int


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes. weights: of the base; step: the peak of the memory that training needs in addition."""

    weights: int
    step: int

    @property
    def total(self) -> int:
        return self.weights + self.step


def memory_need(config: ModelConfig, options: TrainingOptions, shape: BatchShape, dtype: BaseDtype) -> MemoryNeed:
    """The memory that a training needs with its base in `dtype`."""
    shapes = config.tensor_shapes()
    sizes = [math.prod(one) for one in shapes.values()]
    targets = [one for name, one in shapes.items() if name.split(".")[-2] in options.targets]
    adapter = _STATE * sum(options.rank * sum(one) for one in targets)
    logits = min(POSITIONS, shape.rows * shape.width) * config.vocab_size * _LOGITS
    loading = 0 if dtype == "float32" else round(_LOADING * max(sizes))
    running = adapter + logits + activation_bytes(config, options, shape, dtype)
    return MemoryNeed(ITEM_BYTES[dtype] * sum(sizes), _LIBRARIES + max(loading, running))


def activation_bytes(config: ModelConfig, options: TrainingOptions, shape: BatchShape, dtype: BaseDtype) -> int:
    """The bytes that a forward pass over a batch stores for the backward pass."""
    post_norms = _PER_HIDDEN_OF_POST_NORMS * config.has_post_norms
    per_token = (_PER_HIDDEN[dtype] + post_norms) * config.hidden_size
    per_token += _PER_INTERMEDIATE[dtype] * config.intermediate_size
    per_token += (_PER_QUERY + _PER_QUERY_NORM * config.has_qk_norm) * config.num_heads * config.head_dim
    per_token += _PER_KEY * config.num_kv_heads * config.head_dim
    per_token += _PER_RANK * options.rank
    if config.attn_softcap is not None:
        per_token += _PER_SCORE * config.num_heads * shape.width
    elif any(layer.window is not None for layer in config.layers):
        per_token += _PER_MASKED * shape.width
    factor = _EXTRAS if options.dora or options.dropout else 1
    return round(factor * per_token * config.num_layers * shape.rows * shape.width)


def check_memory(need: MemoryNeed, available: Available, dtype: BaseDtype, shape: BatchShape) -> None:
    """Raises NotEnoughMemoryError that names the need, the bound and what can be lowered."""
    if need.total > available.size_bytes:
        raise NotEnoughMemoryError(
            f"training needs about {need.total / _GB:.2f} GB ({need.weights / _GB:.2f} GB for the base in {dtype}, "
            f"{need.step / _GB:.2f} GB for batches of {shape.rows} examples of up to {shape.width} tokens), and "
            f"{available.size_bytes / _GB:.2f} GB are available ({available.bound}). "
            + (
                "Use --dtype bfloat16, a smaller --batch-size, shorter examples or a smaller base"
                if dtype == "float32"
                else "Use a smaller --batch-size, shorter examples or a smaller base"
            )
        )
