"""Gemmas made straight from tensors in memory, so that a test can change one thing about them and share the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig, config_from_hf
from intaglio.model.gemma import Gemma
from intaglio.model.loader import read_config
from intaglio.model.weights import RawTensor, open_checkpoint
from intaglio.ops import AdapterTensors, Ops
from intaglio.ops.reference import ReferenceOps
from tests.golden.cases import BASE, MIXED, adapter_folder, tiny_model, untied_model
from tests.helpers.checkpoints import Family


@dataclass(frozen=True, slots=True)
class MemoryCheckpoint:
    """What `Gemma` asks of a checkpoint. Its float32 matrices are used as they are, without a copy."""

    tensors: Mapping[str, NDArray[np.float32]]
    norm_includes_one: bool

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self.tensors[name]

    def raw(self, name: str) -> RawTensor:
        values = self.tensors[name]
        return RawTensor(name, "F32", values.shape, values.reshape(-1).view(np.uint8))

    checked_raw = raw


@dataclass(frozen=True, slots=True)
class Parts:
    """All that a Gemma is made of. `build` puts it together, with any one part changed."""

    config: ModelConfig
    checkpoint: MemoryCheckpoint
    ops: Ops = field(default_factory=ReferenceOps)

    def build(
        self,
        change: Callable[[ModelConfig], ModelConfig] = lambda config: config,
        ops: Ops | None = None,
        norm_includes_one: bool | None = None,
    ) -> Gemma:
        includes_one = self.checkpoint.norm_includes_one if norm_includes_one is None else norm_includes_one
        checkpoint = MemoryCheckpoint(self.checkpoint.tensors, includes_one)
        return Gemma(change(self.config), checkpoint, ops or self.ops, "f32")


def tiny_parts(family: Family) -> Parts:
    """The tiny model whose logits are stored."""
    config, weights = tiny_model(family)
    return Parts(config_from_hf(config), MemoryCheckpoint(weights, norm_includes_one=False))


def untied_parts() -> Parts:
    """The one with a table of its own for the head."""
    config, weights = untied_model()
    return Parts(config_from_hf(config), MemoryCheckpoint(weights, norm_includes_one=False))


def gguf_parts(path: Path) -> Parts:
    """A GGUF file with every tensor decoded once."""
    with open_checkpoint(path) as checkpoint:
        tensors = {name: checkpoint.tensor(name) for name in checkpoint.names()}
        return Parts(read_config(checkpoint), MemoryCheckpoint(tensors, norm_includes_one=True))


def golden_adapters(family: Family, config: ModelConfig) -> dict[str, AdapterTensors | None]:
    """The stored adapters by name, and the base model under PEFT's name for it."""
    names = sorted(set(MIXED[family]) - {BASE})
    adapters: dict[str, AdapterTensors | None] = {
        name: read_peft_adapter(adapter_folder(family, name), config, AdapterLimits()).tensors for name in names
    }
    return adapters | {BASE: None}
