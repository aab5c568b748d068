"""Faults of Gemma or LoRA that raise no error: each a small change of the config, of one op, or of an adapter.

`known` is the largest logit difference that the fault caused when the list was made, on other random weights: the size
to expect, not a bound. None: the fault was added later.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import LayerConfig, ModelConfig, rounded_embed_scale
from intaglio.ops import AdapterTensors, Array, LoraPair, Ops
from intaglio.ops.reference import ReferenceOps
from tests.helpers.checkpoints import Family


@dataclass(frozen=True, slots=True)
class Mutation:
    """A fault of the model: arguments for `tests.golden.models.Parts.build`."""

    name: str
    known: float | None
    change: Callable[[ModelConfig], ModelConfig] = lambda config: config
    ops: type[ReferenceOps] = ReferenceOps
    norm_includes_one: bool | None = None

    def new_ops(self) -> Ops:
        return self.ops()


class InterleavedRope(ReferenceOps):
    """Rotates pairs (2i, 2i + 1) instead of (i, i + dim/2)."""

    def rope(self, x: Array, positions: Array, theta: float, factor: float) -> Array:
        split = np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)
        turned = super().rope(split, positions, theta, factor)
        half = x.shape[-1] // 2
        return np.stack([turned[..., :half], turned[..., half:]], axis=-1).reshape(x.shape)


class ExactGelu(ReferenceOps):
    """x · Φ(x) instead of its tanh form."""

    def gelu_gate(self, gate: Array, up: Array) -> Array:
        phi = np.vectorize(lambda x: 0.5 * (1 + math.erf(x / math.sqrt(2))), otypes=[np.float32])(gate)
        return gate * phi * up


def _each_layer(change: Callable[[int, LayerConfig], LayerConfig]) -> Callable[[ModelConfig], ModelConfig]:
    return lambda config: replace(config, layers=tuple(change(i, layer) for i, layer in enumerate(config.layers)))


def _local(change: Callable[[LayerConfig], LayerConfig]) -> Callable[[ModelConfig], ModelConfig]:
    return _each_layer(lambda _, layer: layer if layer.window is None else change(layer))


def _window(change: int | None) -> Callable[[ModelConfig], ModelConfig]:
    """Windows larger by `change`; None removes them."""
    return _local(lambda layer: replace(layer, window=None if change is None else (layer.window or 0) + change))


def _global_theta_everywhere(config: ModelConfig) -> ModelConfig:
    return _local(lambda layer: replace(layer, rope_theta=1_000_000.0))(config)


def _period(period: int) -> Callable[[ModelConfig], ModelConfig]:
    """Every `period`-th layer is global."""

    def change(config: ModelConfig) -> ModelConfig:
        local = next(layer for layer in config.layers if layer.window is not None)
        full = next(layer for layer in config.layers if layer.window is None)
        layers = tuple(full if (i + 1) % period == 0 else local for i in range(config.num_layers))
        return replace(config, layers=layers)

    return change


def _swapped_parity(config: ModelConfig) -> ModelConfig:
    return replace(config, layers=(config.layers[1], config.layers[0]) * (config.num_layers // 2))


_HEAD_DIM_SCALE = Mutation(
    "head_dim for query_pre_attn_scalar", 1.1, lambda c: replace(c, score_scale=c.head_dim**-0.5)
)
_WINDOW = (
    Mutation("window one too small", None, _window(-1)),
    Mutation("window one too large", None, _window(1)),
    Mutation("no window", None, _window(None)),
)

MUTATIONS: Mapping[Family, tuple[Mutation, ...]] = {
    "gemma": (
        Mutation("w instead of 1 + w", 4.9, norm_includes_one=True),
        Mutation("no embedding scale", 6.4, lambda c: replace(c, embed_scale=1.0)),
        Mutation("interleaved rope", 5.9, ops=InterleavedRope),
        Mutation("theta 1e6", 5.0, _each_layer(lambda _, layer: replace(layer, rope_theta=1e6))),
        Mutation(
            "score scale from hidden / heads",
            3.0,
            lambda c: replace(c, score_scale=(c.hidden_size // c.num_heads) ** -0.5),
        ),
        Mutation(
            "bfloat16-rounded embedding scale",
            1.3e-2,
            lambda c: replace(c, embed_scale=rounded_embed_scale(c.hidden_size, "bfloat16")),
        ),
        Mutation("exact GELU", 2.0e-3, ops=ExactGelu),
    ),
    "gemma2": (
        Mutation("no attention cap", 0.17, lambda c: replace(c, attn_softcap=None)),
        Mutation("no final cap", 4.9, lambda c: replace(c, final_softcap=None)),
        Mutation("local and global layers swapped", 12.4, _swapped_parity),
        _HEAD_DIM_SCALE,
        *_WINDOW,
    ),
    "gemma3_text": (
        Mutation("no rope factor", 1.7, _each_layer(lambda _, layer: replace(layer, rope_factor=1.0))),
        Mutation("rope factor on local layers too", 5.7, _local(lambda layer: replace(layer, rope_factor=8.0))),
        replace(_HEAD_DIM_SCALE, known=1.6),
        *_WINDOW,
        Mutation("global theta everywhere", None, _global_theta_everywhere),
        Mutation("period 5", None, _period(5)),
    ),
}

MUTATIONS_270M = (
    Mutation("window 511", 0.94, _window(-1)),
    Mutation("window 513", 0.88, _window(1)),
    Mutation("no window", 19.6, _window(None)),
    Mutation("global theta everywhere", 37.0, _global_theta_everywhere),
    Mutation("period 5", 24.0, _period(5)),
    Mutation("1 + w twice", 57.0, norm_includes_one=False),
)


@dataclass(frozen=True, slots=True)
class LoraMutation:
    """A fault in reading an adapter: (its folder, a folder to write in, the base) -> the wrong pairs."""

    name: str
    known: float | None
    read: Callable[[Path, Path, ModelConfig], AdapterTensors | None]


def _with_config(**changes: object) -> Callable[[Path, Path, ModelConfig], AdapterTensors]:
    """Read the adapter as if its config said something else."""

    def read(folder: Path, aside: Path, config: ModelConfig) -> AdapterTensors:
        settings = json.loads((folder / "adapter_config.json").read_text()) | changes
        (aside / "adapter_config.json").write_text(json.dumps(settings))
        (aside / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes())
        return read_peft_adapter(aside, config, AdapterLimits()).tensors

    return read


def _scaled_as_if(rank_used: Callable[[int, int], int]) -> Callable[[Path, Path, ModelConfig], AdapterTensors]:
    """Scales every module with another rank than its own. rank_used: (own rank, r of the config) -> the wrong rank."""

    def read(folder: Path, aside: Path, config: ModelConfig) -> AdapterTensors:
        settings = json.loads((folder / "adapter_config.json").read_text())
        power = 0.5 if settings["use_rslora"] else 1.0
        pairs = {}
        for key, pair in read_peft_adapter(folder, config, AdapterLimits()).pairs.items():
            rank = pair.a.shape[0]
            factor = (rank / rank_used(rank, settings["r"])) ** power
            pairs[key] = LoraPair(pair.a, pair.b * np.float32(factor))
        return AdapterTensors(pairs)

    return read


LORA_MUTATIONS = (
    LoraMutation("rsLoRA ignored", 6.7, _with_config(use_rslora=False)),
    LoraMutation("alpha_pattern ignored", 7.5, _with_config(alpha_pattern={})),
    LoraMutation("config r for a rank_pattern module", 1.3, _scaled_as_if(lambda own, configured: configured)),
    LoraMutation("alpha for the scaling", None, _scaled_as_if(lambda own, configured: 1)),
    LoraMutation("the rank padded to eight", None, _scaled_as_if(lambda own, configured: 8)),
    LoraMutation("adapter off", 7.8, lambda folder, aside, config: None),
)
