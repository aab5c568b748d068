"""From a reference to an adapter that the model's forward can take: its packed file, or else its own files."""

from __future__ import annotations

from pathlib import Path

from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.packed import PackedAdapters
from intaglio.lora.peft import AdapterLimits, read_peft_adapter
from intaglio.lora.pool import LoadedAdapter
from intaglio.model.gemma import Gemma
from intaglio.request import AdapterRef


class AdapterLoader:
    """Loads adapters for one model. Keeps no state, so any thread may call it."""

    def __init__(self, model: Gemma, limits: AdapterLimits, packed: PackedAdapters) -> None:
        self._model = model
        self._limits = limits
        self._packed = packed

    def load(self, ref: AdapterRef) -> LoadedAdapter:
        """Raises AdapterError if there is no packed file and the adapter's own files are bad.

        An adapter without a packed file gets one, so that the next load is quick.
        """
        adapter = self._packed.read(ref.digest)
        if adapter is None or not self._fits(adapter):
            # Its own files say what does not fit, by the name of the tensor.
            adapter = self._packed.keep(read_peft_adapter(Path(ref.folder), self._model.config, self._limits))
        prepared = self._model.prepare_adapter(adapter.pairs)
        return LoadedAdapter(adapter.digest, adapter.rank, adapter.nbytes, prepared)

    def _fits(self, adapter: LoraAdapter) -> bool:
        """Whether a packed adapter, which may have been checked for another base and other limits, fits these."""
        config = self._model.config
        shapes = config.projection_shapes()
        return adapter.rank <= self._limits.max_rank and all(
            layer < config.num_layers and (pair.b.shape[0], pair.a.shape[1]) == shapes[projection]
            for (layer, projection), pair in adapter.pairs.items()
        )
