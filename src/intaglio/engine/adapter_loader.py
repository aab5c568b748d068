"""Loads an adapter for the model's forward: from its packed file, or else from its own files.

An adapter without a packed file is read, checked, prepared and *verified*; then the packed file is written, with the
verification in it. So every adapter that is loaded was verified, on this base and with these kernels.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.cache import PackedAdapter, PackedAdapters
from intaglio.lora.packing import AdapterDtype, count_wider, pack_tensors
from intaglio.lora.peft.base_tables import BaseTables
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.lora.pool import LoadedAdapter
from intaglio.model.gemma import Gemma
from intaglio.model.packed import packed_key
from intaglio.ops import AdapterTensors, AdapterWeights, Ops
from intaglio.ops.cross_check import single_threaded_numpy
from intaglio.request import AdapterRef, Verification, VerifiedAdapter
from intaglio.version import __version__

# The adapter as in its files, and as it would be served -> its verification. Raises AdapterError.
VerifyAdapter = Callable[[LoraAdapter, AdapterWeights], Verification]


class AdapterLoader:
    """Loads adapters for one model. Any thread may call it; one adapter is verified at a time."""

    def __init__(
        self,
        model: Gemma,
        ops: Ops,
        limits: AdapterLimits,
        packed: PackedAdapters,
        verify: VerifyAdapter,
        base_tables: BaseTables | None = None,
    ) -> None:
        self._model = model
        self._ops = ops
        self._base_weights = model.adapter_weights()
        self._limits = limits
        self._packed = packed
        self._verify = verify
        self._base_tables = base_tables
        self._verify_lock = threading.Lock()

    def load(self, ref: AdapterRef) -> LoadedAdapter:
        """Raises AdapterError if there is no packed file and the adapter's own files are bad or fail verification."""
        found = self._read_packed(ref.digest) or self._verify_and_pack(self._read_folder(ref.folder, ref.digest))
        packed, prepared = found
        verification = packed.verification
        return LoadedAdapter(ref.digest, verification.rank, packed.nbytes, prepared, verification.scalable)

    def verify(self, folder: str, digest: str | None = None) -> VerifiedAdapter:
        """The digest and the verification of the adapter in a folder; it is verified now if it was not before.

        digest  what it must have, if that is known: then the folder of an adapter with a packed file is not read
        Raises AdapterError as `load` does.
        """
        if digest is not None and (known := self._read_packed(digest)) is not None:
            return VerifiedAdapter(digest, known[0].verification)
        adapter = self._read_folder(folder, digest)
        packed, _ = self._read_packed(adapter.digest) or self._verify_and_pack(adapter)
        verification = packed.verification
        notes = (*adapter.notes, *verification.notes)  # of its files first, which the packed file does not know
        return VerifiedAdapter(adapter.digest, replace(verification, notes=notes))

    def _read_packed(self, digest: str) -> tuple[PackedAdapter, AdapterWeights] | None:
        """The adapter from its packed file. None if the file does not exist or does not fit the model or the limits:
        then reading the adapter's own files gives the reason, or a new packed file.
        """
        packed = self._packed.read(digest)
        if packed is None or packed.verification.rank > self._limits.max_rank:
            return None
        try:
            return packed, self._ops.lora_from_arrays(packed.arrays, self._base_weights)
        except ValueError:
            return None

    def _read_folder(self, folder: str, digest: str | None) -> LoraAdapter:
        adapter = read_peft_adapter(Path(folder), self._model.config, self._limits, self._base_tables)
        if digest not in (None, adapter.digest):
            raise AdapterError(f"adapter in {folder} has digest {adapter.digest}, not {digest}: its files changed")
        return adapter

    def _verify_and_pack(self, adapter: LoraAdapter) -> tuple[PackedAdapter, AdapterWeights]:
        with self._verify_lock, single_threaded_numpy():
            found = self._read_packed(adapter.digest)  # another thread may have verified it meanwhile
            if found is not None:
                return found
            tensors = pack_tensors(adapter.tensors, self._packed.dtype)
            arrays = self._ops.lora_arrays(self._model.prepare_adapter(tensors))
            # Verify what later loads will use: weights made from the arrays of the packed file.
            prepared = self._ops.lora_from_arrays(arrays, self._base_weights)
            verification = replace(self._verify(adapter, prepared), notes=_packing_notes(tensors, self._packed.dtype))
            packed = PackedAdapter(verification, arrays)
            self._packed.write(adapter.digest, packed)
        return packed, prepared


def _packing_notes(tensors: AdapterTensors, dtype: AdapterDtype) -> tuple[str, ...]:
    wider = count_wider(tensors, dtype)
    if not wider:
        return ()
    return (
        f"{wider} of {len(tensors.pairs)} LoRA modules are held with more bits than {dtype}, which would change them "
        "too much: their parts nearly cancel, as in an adapter converted from PiSSA or OLoRA",
    )


def serving_identity(model_path: Path, fmt: str, ops: Ops) -> str:
    """What a packed adapter and its verification depend on besides its own files: the base and its format, the kernels,
    and the version of Intaglio.
    """
    return f"{packed_key(model_path, fmt, ops.layout)} {ops.name} {__version__}"
