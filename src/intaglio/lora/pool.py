"""The adapters held in memory: read when first needed, pinned while a sequence runs with them, evicted oldest first.

    absent  --prepare-->  being read  --acquire-->  resident and pinned  --release-->  resident  --eviction-->  absent

A budget of bytes bounds what is resident; beside it lie no more than READ_AHEAD adapters that are being read or have
no place yet. Adapters are known by digest; names are for others. Each is read in a thread of its own, so that one on a
slow disk holds up nobody but its own requests.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from intaglio.errors import AdapterError
from intaglio.request import AdapterRef

logger = logging.getLogger(__name__)

READ_AHEAD = 4  # adapters, and threads that read
# A packed adapter of a small base is read within this time, so its first request still joins the next step; what takes
# longer is not waited for.
PATIENCE_S = 0.01
# While nothing else can run: how long to wait for an adapter before looking for new messages.
IDLE_WAIT_S = 0.05


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter as it lies in memory.

    prepared  its matrices in the form that the model's forward takes
    """

    digest: str
    rank: int
    nbytes: int
    prepared: Any


class Place(Enum):
    """What `acquire` found for an adapter."""

    TAKEN = auto()  # it is pinned
    COMING = auto()  # it is being read
    NONE = auto()  # the pinned ones leave no room


@dataclass(slots=True)
class _Resident:
    adapter: LoadedAdapter
    pins: int = 0


class AdapterPool:
    """Resident adapters under `budget_bytes`, least recently used first out; pinned ones stay.

    load  reads an adapter from its folder and prepares it; raises AdapterError. Called in threads that read
    """

    def __init__(self, budget_bytes: int, load: Callable[[AdapterRef], LoadedAdapter]) -> None:
        self._budget_bytes = budget_bytes
        self._load = load
        self._residents: OrderedDict[str, _Resident] = OrderedDict()  # least recently used first
        self._reads: dict[AdapterRef, Future[LoadedAdapter]] = {}
        self._readers = ThreadPoolExecutor(READ_AHEAD, "adapter-reader")

    @property
    def used_bytes(self) -> int:
        return sum(resident.adapter.nbytes for resident in self._residents.values())

    def prepare(self, refs: Sequence[AdapterRef], *, idle: bool) -> None:
        """Have those of these adapters read that are not resident, the first ones first; drop other reads.

        idle  nobody runs or waits but for these: if none is resident, wait for one, though not for long. Otherwise wait
              only for those whose reading begins now, and hardly.
        """
        missing = [ref for ref in refs if ref.digest not in self._residents]
        for ref in self._reads.keys() - set(missing):
            # One that is at work keeps its place until it ends: else a slow one, asked for again, took another thread.
            if self._reads[ref].cancel() or self._reads[ref].done():
                del self._reads[ref]
        new = []
        for ref in missing:
            if ref not in self._reads and len(self._reads) < READ_AHEAD:
                self._reads[ref] = self._readers.submit(self._load, ref)
                new.append(self._reads[ref])
        if idle and missing and len(missing) == len(refs):
            wait(self._reads.values(), IDLE_WAIT_S, FIRST_COMPLETED)
        elif new:
            wait(new, PATIENCE_S)

    def acquire(self, ref: AdapterRef) -> Place:
        """Pin an adapter that is resident or has been read since `prepare`.

        Raises AdapterError if its files are bad, are not the ones that were proven, or exceed the whole budget.
        """
        resident = self._residents.get(ref.digest)
        if resident is None:
            read = self._reads.get(ref)
            if read is None or not read.done():
                return Place.COMING
            adapter = self._checked(ref, read)
            if not self._make_room(adapter.nbytes):
                return Place.NONE  # what was read is kept for the next try
            del self._reads[ref]
            resident = self._residents[ref.digest] = _Resident(adapter)
            logger.info("adapter %s loaded: rank %d, %d bytes", ref.digest[:12], adapter.rank, adapter.nbytes)
        resident.pins += 1
        self._residents.move_to_end(ref.digest)
        return Place.TAKEN

    def release(self, digest: str) -> None:
        """One pin less."""
        resident = self._residents[digest]
        assert resident.pins > 0, f"adapter {digest} released more often than acquired"
        resident.pins -= 1

    def get(self, digest: str) -> LoadedAdapter:
        """A pinned adapter."""
        return self._residents[digest].adapter

    def _checked(self, ref: AdapterRef, read: Future[LoadedAdapter]) -> LoadedAdapter:
        try:
            adapter = read.result()
            if adapter.digest != ref.digest:
                raise AdapterError(
                    f"adapter in {ref.folder} has digest {adapter.digest}, not {ref.digest}: its files changed"
                )
            if adapter.nbytes > self._budget_bytes:
                raise AdapterError(
                    f"adapter {ref.digest[:12]} takes {adapter.nbytes} bytes in memory, "
                    f"more than adapter_cache_bytes = {self._budget_bytes}"
                )
        except AdapterError:
            del self._reads[ref]
            raise
        except Exception as error:  # the machine's fault or ours, but no reason to take others along
            logger.exception("adapter %s could not be read", ref.digest[:12])
            del self._reads[ref]
            raise AdapterError(f"adapter in {ref.folder} could not be read: {type(error).__name__}: {error}") from error
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
