"""Random adapters of every kind, as `read_peft_adapter` returns them: biases, DoRA, embedding, head, norms, tables.

One of them has everything that is added to the base's outputs. The others replace parts of the base, which no single
adapter can do in every way.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from intaglio.model.config import ModelConfig
from intaglio.ops import MODEL, AdapterTensors, LoraPair, ModuleKey, TokenRows

F32 = NDArray[np.float32]

_RANK = 3


def adapters_of_every_kind(config: ModelConfig, seed: int = 0) -> Mapping[str, AdapterTensors]:
    """By what they contain. The first is a sum (`AdapterTensors.is_sum`)."""
    make = _TensorMaker(config, seed)
    embedding, head = (MODEL, "embed_tokens"), (MODEL, "lm_head")
    table = (config.vocab_size, config.hidden_size)
    return {
        "bias, embedding and head": AdapterTensors(
            {**make.pairs(bias=True), embedding: make.pair(*table[::-1]), head: make.pair(*table, bias=True)}
        ),
        "dora and norms": AdapterTensors(
            {
                **make.pairs(magnitude=True),
                embedding: make.pair(*table[::-1], magnitude=True),
                head: make.pair(*table, magnitude=True),
            },
            norms=make.norms(),
        ),
        "rows": AdapterTensors(make.pairs(), rows={name: make.rows(25) for name in ("embed_tokens", "lm_head")}),
        "tables": AdapterTensors(
            make.pairs(), norms=make.norms(), tables={name: make.values(*table) for name in ("embed_tokens", "lm_head")}
        ),
    }


class _TensorMaker:
    def __init__(self, config: ModelConfig, seed: int) -> None:
        self._config = config
        self._random = np.random.default_rng(seed)

    def values(self, *shape: int, size: float = 0.3) -> F32:
        values: F32 = self._random.normal(0, size, shape).astype(np.float32)
        return values

    def pair(self, out: int, inputs: int, *, bias: bool = False, magnitude: bool = False) -> LoraPair:
        return LoraPair(
            self.values(_RANK, inputs, size=inputs**-0.5),
            self.values(out, _RANK),
            bias=self.values(out) if bias else None,
            magnitude=1 + self.values(out) if magnitude else None,
        )

    def pairs(self, *, bias: bool = False, magnitude: bool = False) -> dict[ModuleKey, LoraPair]:
        """On every projection."""
        return {
            (layer, name): self.pair(*shape, bias=bias, magnitude=magnitude)
            for layer in range(self._config.num_layers)
            for name, shape in self._config.linear_layer_shapes().items()
        }

    def norms(self) -> dict[ModuleKey, F32]:
        """A replacement of every norm of the base."""
        shapes = {name: shape for name, shape in self._config.tensor_shapes().items() if len(shape) == 1}
        return {_key(name): 1 + self.values(*shape) for name, shape in shapes.items()}

    def rows(self, count: int) -> TokenRows:
        ids = np.sort(self._random.choice(self._config.vocab_size, count, replace=False)).astype(np.int32)
        return TokenRows(ids, self.values(count, self._config.hidden_size))


def _key(tensor: str) -> ModuleKey:
    """model.layers.3.self_attn.q_norm.weight -> (3, "self_attn.q_norm"); model.norm.weight -> (MODEL, "norm")"""
    parts = tensor.split(".")[1:-1]
    return (int(parts[1]), ".".join(parts[2:])) if parts[0] == "layers" else (MODEL, parts[0])
