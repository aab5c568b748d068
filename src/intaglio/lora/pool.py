"""The adapters held in memory: loaded when first needed, pinned while a sequence runs with them, evicted oldest first.

A budget of bytes bounds the pool. Adapters are known by digest; names are for others.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from intaglio.errors import AdapterError
from intaglio.request import AdapterRef

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter as it lies in memory.

    prepared  its matrices in the form that the model's forward takes
    """

    digest: str
    rank: int
    nbytes: int
    prepared: Any


@dataclass(slots=True)
class _Resident:
    adapter: LoadedAdapter
    pins: int = 0


class AdapterPool:
    """Resident adapters under `budget_bytes`, least recently used first out; pinned ones stay.

    load  reads an adapter from its folder and prepares it; raises AdapterError
    """

    def __init__(self, budget_bytes: int, load: Callable[[AdapterRef], LoadedAdapter]) -> None:
        self._budget_bytes = budget_bytes
        self._load = load
        self._residents: OrderedDict[str, _Resident] = OrderedDict()  # least recently used first

    @property
    def used_bytes(self) -> int:
        return sum(resident.adapter.nbytes for resident in self._residents.values())

    def acquire(self, ref: AdapterRef) -> bool:
        """Pin the adapter, loading it if need be. False while the pinned ones leave no room for it.

        Raises AdapterError if its files are bad, are not the ones that were proven, or exceed the whole budget.
        """
        resident = self._residents.get(ref.digest)
        if resident is None:
            adapter = self._read(ref)
            if not self._make_room(adapter.nbytes):
                return False
            resident = self._residents[ref.digest] = _Resident(adapter)
            logger.info("adapter %s loaded: rank %d, %d bytes", ref.digest[:12], adapter.rank, adapter.nbytes)
        resident.pins += 1
        self._residents.move_to_end(ref.digest)
        return True

    def release(self, digest: str) -> None:
        """One pin less."""
        resident = self._residents[digest]
        assert resident.pins > 0, f"adapter {digest} released more often than acquired"
        resident.pins -= 1

    def get(self, digest: str) -> LoadedAdapter:
        """A pinned adapter."""
        return self._residents[digest].adapter

    def _read(self, ref: AdapterRef) -> LoadedAdapter:
        adapter = self._load(ref)
        if adapter.digest != ref.digest:
            raise AdapterError(
                f"adapter in {ref.folder} has digest {adapter.digest}, not {ref.digest}: its files changed"
            )
        if adapter.nbytes > self._budget_bytes:
            raise AdapterError(
                f"adapter {ref.digest[:12]} takes {adapter.nbytes} bytes in memory, "
                f"more than adapter_cache_bytes = {self._budget_bytes}"
            )
        return adapter

    def _make_room(self, nbytes: int) -> bool:
        pinned_bytes = sum(resident.adapter.nbytes for resident in self._residents.values() if resident.pins)
        if pinned_bytes + nbytes > self._budget_bytes:
            return False
        while self.used_bytes + nbytes > self._budget_bytes:
            oldest = next(digest for digest, resident in self._residents.items() if not resident.pins)
            del self._residents[oldest]
            logger.info("adapter %s evicted", oldest[:12])
        return True

    def check(self, pins: Mapping[str, int]) -> None:
        """Raise AssertionError unless pins match those held by sequences and the budget is kept."""
        held = {digest: resident.pins for digest, resident in self._residents.items() if resident.pins}
        assert held == {digest: count for digest, count in pins.items() if count}, "pins differ from running sequences"
        assert self.used_bytes <= self._budget_bytes, "over budget"
