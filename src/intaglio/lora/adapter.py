"""An adapter in memory: its changes to a base model, and the digest that is its identity.

Prefix cache, batch, logs and response header identify an adapter by its digest, which covers exactly what the engine
computes with: the same weights under other tensor names, in another order or stored as float32
instead of float16 have the same digest; another scaling, a changed value or a missing module change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.ops import MODEL, AdapterTensors, LoraPair, ModuleKey

# Part of every digest: change it when the arithmetic of adapters changes.
_DIGEST_VERSION = b"intaglio lora 1\n"


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """A checked adapter that a model can run with.

    digest   64 hex digits, see `digest_of`
    rank     the largest of its modules' ranks; 0 if it has no low-rank matrices
    tensors  its changes; in its pairs a is [rank, in] and b [out, rank] with the scaling folded in. As read they are
             float32 and C-contiguous
    notes    sentences about what its files have and it does not
    """

    digest: str
    rank: int
    tensors: AdapterTensors
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, tensors: AdapterTensors, notes: Sequence[str] = ()) -> LoraAdapter:
        """An adapter of at least one tensor, whose scaling is already folded into b and bias."""
        rank = max((pair.a.shape[0] for pair in tensors.pairs.values()), default=0)
        return cls(digest_of(tensors), rank, tensors, tuple(notes))

    @property
    def pairs(self) -> Mapping[ModuleKey, LoraPair]:
        return self.tensors.pairs

    @property
    def num_modules(self) -> int:
        """How many modules of the base it changes."""
        tensors = self.tensors
        tables = {*tensors.tables, *tensors.rows}
        return len({*tensors.pairs, *tensors.norms, *((MODEL, name) for name in tables)})

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return self.tensors.nbytes


def digest_of(tensors: AdapterTensors) -> str:
    """SHA-256 over the canonical tensors, as 64 hex digits.

    In order of (layer, module): a line "layer module rank in out", then a, then b with its scaling, both as
    little-endian float32 in C order. Since the scaling is in b, the digest changes with everything that changes the
    arithmetic, and with nothing else. Tensors other than pairs follow in a fixed order of kinds, each after
    a line "kind layer module shape".
    """
    state = hashlib.sha256(_DIGEST_VERSION)
    for (layer, module), pair in sorted(tensors.pairs.items()):
        rank, in_features = pair.a.shape
        state.update(f"{layer} {module} {rank} {in_features} {pair.b.shape[0]}\n".encode())
        state.update(np.ascontiguousarray(pair.a, "<f4").data)
        state.update(np.ascontiguousarray(pair.b, "<f4").data)
    for kind, (layer, module), array in _other_tensors(tensors):
        state.update(f"{kind} {layer} {module} {list(array.shape)}\n".encode())
        state.update(array.data)
    return state.hexdigest()


def _other_tensors(tensors: AdapterTensors) -> Iterator[tuple[str, ModuleKey, NDArray[Any]]]:
    """The tensors that are not pairs of matrices: (kind, module, values)."""
    for key, pair in sorted(tensors.pairs.items()):
        yield from _as_float32("bias", key, [] if pair.bias is None else [pair.bias])
        yield from _as_float32("magnitude", key, [] if pair.magnitude is None else [pair.magnitude])
    for key, norm in sorted(tensors.norms.items()):
        yield from _as_float32("norm", key, [norm])
    for table, values in sorted(tensors.tables.items()):
        yield from _as_float32("table", (MODEL, table), [values])
    for table, rows in sorted(tensors.rows.items()):
        yield "ids", (MODEL, table), np.ascontiguousarray(rows.ids, "<i4")
        yield from _as_float32("rows", (MODEL, table), [rows.rows])


def _as_float32(kind: str, key: ModuleKey, arrays: Iterable[Any]) -> Iterator[tuple[str, ModuleKey, NDArray[Any]]]:
    for array in arrays:
        yield kind, key, np.ascontiguousarray(array, "<f4")
