"""An adapter in memory: two small matrices per adapted projection, and the digest that is its identity.

Everything downstream (prefix cache, batch, logs, reply header) knows an adapter by its digest. It covers what the
engine computes with and nothing else: the same weights under other tensor names, in another order or stored as float32
instead of float16 have one digest; another scaling, one changed value or one module less give another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from intaglio.lora.tensor_names import ModuleKey
from intaglio.ops import LoraPair

# Part of every digest: change it when the way pairs are computed with changes.
_DIGEST_VERSION = b"intaglio lora 1\n"


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """A checked adapter, ready for a forward.

    digest  64 hex digits, see `digest_of`
    rank    the largest of its modules' ranks
    pairs   (layer index, "self_attn.q_proj" ...) -> a [rank, in], b [out, rank] with the scaling folded into b, as
            read float32 and C-contiguous, as held by the engine what `packed.pack_adapter` makes of that; modules that
            are not adapted are absent
    """

    digest: str
    rank: int
    pairs: Mapping[ModuleKey, LoraPair]

    @classmethod
    def from_pairs(cls, pairs: Mapping[ModuleKey, LoraPair]) -> LoraAdapter:
        """At least one pair, scaling already folded into b."""
        return cls(digest_of(pairs), max(pair.a.shape[0] for pair in pairs.values()), dict(pairs))

    @property
    def num_modules(self) -> int:
        return len(self.pairs)

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices."""
        return sum(pair.nbytes for pair in self.pairs.values())


def digest_of(pairs: Mapping[ModuleKey, LoraPair]) -> str:
    """SHA-256 over the canonical tensors, as 64 hex digits.

    In order of (layer, projection): a line "layer projection rank in out", then a, then b with its scaling, both as
    little-endian float32 in C order. Since the scaling is in b, the digest changes with everything that changes the
    arithmetic, and with nothing else.
    """
    state = hashlib.sha256(_DIGEST_VERSION)
    for (layer, projection), pair in sorted(pairs.items()):
        rank, in_features = pair.a.shape
        state.update(f"{layer} {projection} {rank} {in_features} {pair.b.shape[0]}\n".encode())
        state.update(np.ascontiguousarray(pair.a, "<f4").data)
        state.update(np.ascontiguousarray(pair.b, "<f4").data)
    return state.hexdigest()
