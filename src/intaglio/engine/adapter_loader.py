"""From a reference to an adapter that the model's forward can take: its packed file, or else its own files.

An adapter without a packed file is read, checked, prepared and *verified* before anybody gets it; the packed file that
then is written says so. So what is loaded was verified, whoever loads it first, and on this base with these kernels.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.cache import PackedAdapter, PackedAdapters
from intaglio.lora.packing import pack_tensors
from intaglio.lora.peft.base_tables import BaseTables
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.lora.pool import LoadedAdapter
from intaglio.model.gemma import Gemma
from intaglio.model.packed import packed_key
from intaglio.ops import AdapterWeights, Ops
from intaglio.request import AdapterRef, Verification
from intaglio.version import __version__

# The adapter as its files have it, and as it would be served -> what running it showed. Raises AdapterError.
Verifier = Callable[[LoraAdapter, AdapterWeights], Verification]


class AdapterLoader:
    """Loads adapters for one model. Any thread may call it; one adapter is verified at a time."""

    def __init__(
        self,
        model: Gemma,
        ops: Ops,
        limits: AdapterLimits,
        packed: PackedAdapters,
        verifier: Verifier,
        base_tables: BaseTables | None = None,
    ) -> None:
        self._model = model
        self._ops = ops
        self._base_weights = model.adapter_weights()
        self._limits = limits
        self._packed = packed
        self._verifier = verifier
        self._base_tables = base_tables
        self._turn = threading.Lock()

    def load(self, ref: AdapterRef) -> LoadedAdapter:
        """Raises AdapterError if there is no packed file and the adapter's own files are bad, or it is not verified."""
        packed, prepared = self._found(ref.digest) or self._made(ref)
        verification = packed.verification
        return LoadedAdapter(ref.digest, verification.rank, packed.nbytes, prepared, verification.scalable)

    def verify(self, ref: AdapterRef) -> Verification:
        """The adapter's verification; it is made if there is none. Raises AdapterError as `load` does."""
        return (self._found(ref.digest) or self._made(ref))[0].verification

    def _found(self, digest: str) -> tuple[PackedAdapter, AdapterWeights] | None:
        """From its packed file. None if that is not there, does not fit, or is beyond today's limits: then the
        adapter's own files say why, or mend it.
        """
        packed = self._packed.read(digest)
        if packed is None or packed.verification.rank > self._limits.max_rank:
            return None
        try:
            return packed, self._ops.lora_from_arrays(packed.arrays, self._base_weights)
        except ValueError:
            return None

    def _made(self, ref: AdapterRef) -> tuple[PackedAdapter, AdapterWeights]:
        folder, config = Path(ref.folder), self._model.config
        adapter = read_peft_adapter(folder, config, self._limits, base_tables=self._base_tables)
        if adapter.digest != ref.digest:
            raise AdapterError(
                f"adapter in {ref.folder} has digest {adapter.digest}, not {ref.digest}: its files changed"
            )
        arrays = self._ops.lora_arrays(self._model.prepare_adapter(pack_tensors(adapter.tensors, self._packed.dtype)))
        # Verified is what later loads will have: made of the arrays that the file holds.
        prepared = self._ops.lora_from_arrays(arrays, self._base_weights)
        with self._turn:
            found = self._found(ref.digest)  # while this thread read, another may have verified it
            if found is not None:
                return found
            packed = PackedAdapter(self._verifier(adapter, prepared), arrays)
            self._packed.write(ref.digest, packed)
        return packed, prepared


def served_by(model_path: Path, fmt: str, ops: Ops) -> str:
    """What a packed adapter and its verification depend on beside its own files: the base as it is served, the
    kernels, us.
    """
    return f"{packed_key(model_path, fmt, ops.layout)} {ops.name} {__version__}"
