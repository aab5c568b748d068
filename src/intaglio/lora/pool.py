"""The adapters in memory: read when first needed, pinned while a sequence runs with them, evicted oldest first.

    absent  --prepare-->  being read  --acquire-->  resident and pinned  --release-->  resident  --eviction-->  absent

A request may need several adapters. It gets all of them or none, so two requests never wait for each other's adapters.

The budget in bytes limits the resident adapters. In addition, at most READ_AHEAD adapters are being read or wait to
become resident, or as many as the first request in the queue needs, if that is more. An adapter is identified by its
digest, independent of the folder of its files; this module does not know names. Adapters are read in threads, so a slow
disk delays only the requests that need the adapter.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from intaglio.errors import AdapterError, AdapterUseError
from intaglio.request import AdapterRef, ScaledAdapter

logger = logging.getLogger(__name__)

READ_AHEAD = 4  # adapters, and threads that read
# How long a step waits for reads that have just begun. A packed adapter of a small base is read within this time, so
# its first request still joins the step.
READ_WAIT_S = 0.01
# While nothing else can run: how long to wait for an adapter before looking for new messages.
IDLE_WAIT_S = 0.05

Mix = Sequence[ScaledAdapter]  # the adapters of one request, each digest once


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter in memory.

    prepared  its matrices in the form that the model's forward takes
    scalable  it only adds to the base's outputs, so it can be scaled and mixed
    """

    digest: str
    rank: int
    nbytes: int
    prepared: Any
    scalable: bool = True


class AcquireResult(Enum):
    """The result of `acquire` for the adapters of one request."""

    ACQUIRED = auto()  # all of them are resident and pinned
    LOADING = auto()  # at least one is still being read
    NO_CAPACITY = auto()  # they do not fit into the budget together with the pinned ones


@dataclass(slots=True)
class _Resident:
    adapter: LoadedAdapter
    pins: int = 0


@dataclass(frozen=True, slots=True)
class _Read:
    """A requested read. ref has the folder from which the adapter is read."""

    ref: AdapterRef
    future: Future[LoadedAdapter]


class AdapterPool:
    """Resident adapters within `budget_bytes`. The least recently used is evicted first; pinned ones stay.

    load  reads an adapter from its folder and prepares it; raises AdapterError. Called in the reading threads
    """

    def __init__(self, budget_bytes: int, load: Callable[[AdapterRef], LoadedAdapter]) -> None:
        self._budget_bytes = budget_bytes
        self._load = load
        self._residents: OrderedDict[str, _Resident] = OrderedDict()  # least recently used first
        self._reads: dict[str, _Read] = {}
        self._readers = ThreadPoolExecutor(READ_AHEAD, "adapter-reader")

    @property
    def budget_bytes(self) -> int:
        return self._budget_bytes

    @property
    def resident(self) -> list[LoadedAdapter]:
        """The adapters in memory, the most recently used first."""
        return [one.adapter for one in reversed(self._residents.values())]

    @property
    def used_bytes(self) -> int:
        return sum(resident.adapter.nbytes for resident in self._residents.values())

    # -- reading

    def prepare(self, mixes: Sequence[Mix], *, idle: bool) -> None:
        """Start reading the adapters that are not resident, in the order of the queue; drop other reads.

        mixes  the adapters of each of the next requests, in the order of the queue
        idle   whether no other request runs or waits. If so, and none of these has all its adapters, wait up to
               IDLE_WAIT_S for the next adapter; otherwise wait up to READ_WAIT_S, only for reads that begin now.
        """
        missing = [self._missing_refs(mix) for mix in mixes]
        max_reads = max(READ_AHEAD, len(missing[0]) if missing else 0)
        wanted: dict[str, AdapterRef] = {}
        for ref in (ref for refs in missing for ref in refs):
            if len(wanted) < max_reads:
                wanted.setdefault(ref.digest, ref)
        # Drop finished reads of later requests too: they count against READ_AHEAD, which the first request needs.
        self._drop_reads_but(wanted.keys())
        new = []
        for digest, ref in wanted.items():
            if digest not in self._reads and len(self._reads) < max_reads:
                self._reads[digest] = _Read(ref, self._readers.submit(self._load, ref))
                new.append(self._reads[digest].future)
        if idle and mixes and not any(self._are_read(refs) for refs in missing):
            wait([read.future for read in self._reads.values() if not read.future.done()], IDLE_WAIT_S, FIRST_COMPLETED)
        elif new:
            wait(new, READ_WAIT_S)

    def _missing_refs(self, mix: Mix) -> list[AdapterRef]:
        return [one.ref for one in mix if one.ref.digest not in self._residents]

    def _are_read(self, refs: Sequence[AdapterRef]) -> bool:
        reads = [self._reads.get(ref.digest) for ref in refs]
        return all(read is not None and read.future.done() for read in reads)

    def _drop_reads_but(self, wanted: Set[str]) -> None:
        for digest in self._reads.keys() - wanted:
            # A read that has begun stays until it ends: otherwise a slow read that is requested again would occupy a
            # second thread.
            if self._reads[digest].future.cancel() or self._reads[digest].future.done():
                del self._reads[digest]

    # -- acquire and release

    def acquire(self, mix: Mix) -> AcquireResult:
        """Pin the adapters of one request, each of which is resident or has been read since `prepare`; all or none.

        Raises AdapterError if an adapter's files are invalid or changed since verification, if it cannot be scaled or
        mixed as requested, or if the adapters together exceed the whole budget.
        """
        loading = False
        found: dict[str, LoadedAdapter] = {}
        for one in mix:
            adapter = self._find_loaded(one.ref)
            if adapter is None:
                loading = True
            else:
                found[one.ref.digest] = adapter
        if loading:
            return AcquireResult.LOADING
        _check_scalable(mix, found)
        self._check_budget(found)
        if not self._evict_for(found):
            return AcquireResult.NO_CAPACITY  # what was read is kept for the next try
        for digest, adapter in found.items():
            if digest not in self._residents:
                del self._reads[digest]
                self._residents[digest] = _Resident(adapter)
                logger.info("adapter %s loaded: rank %d, %d bytes", digest[:12], adapter.rank, adapter.nbytes)
            self._residents[digest].pins += 1
            self._residents.move_to_end(digest)
        return AcquireResult.ACQUIRED

    def release(self, mix: Mix) -> None:
        """Remove one pin from each."""
        for one in mix:
            resident = self._residents[one.ref.digest]
            assert resident.pins > 0, f"adapter {one.ref.digest} released more often than acquired"
            resident.pins -= 1

    def get(self, digest: str) -> LoadedAdapter:
        """A pinned adapter."""
        return self._residents[digest].adapter

    def _find_loaded(self, ref: AdapterRef) -> LoadedAdapter | None:
        """The adapter if it is resident or has been read, from any folder. Raises AdapterError if the files in this
        reference's folder are invalid.
        """
        resident = self._residents.get(ref.digest)
        if resident is not None:
            return resident.adapter
        read = self._reads.get(ref.digest)
        if read is None or not read.future.done():
            return None
        try:
            return _loaded_adapter(read)
        except AdapterError:
            del self._reads[ref.digest]
            if read.ref.folder != ref.folder:  # the files in this reference's folder may be valid
                return None
            raise

    def _check_budget(self, found: Mapping[str, LoadedAdapter]) -> None:
        nbytes = sum(adapter.nbytes for adapter in found.values())
        if nbytes > self._budget_bytes:
            names = " and ".join(digest[:12] for digest in found)
            these, need = ("adapters", "need") if len(found) > 1 else ("adapter", "needs")
            raise AdapterUseError(
                f"{these} {names} {need} {nbytes} bytes in memory, more than adapter_cache_bytes = {self._budget_bytes}"
            )

    def _evict_for(self, wanted: Mapping[str, LoadedAdapter]) -> bool:
        """Evict until these and the pinned ones fit into the budget. False, with nothing evicted, if they cannot."""
        others = {digest: one for digest, one in self._residents.items() if digest not in wanted}
        capacity = self._budget_bytes - sum(adapter.nbytes for adapter in wanted.values())
        if sum(one.adapter.nbytes for one in others.values() if one.pins) > capacity:
            return False
        used = sum(one.adapter.nbytes for one in others.values())
        for digest, one in others.items():
            if used <= capacity:
                break
            if not one.pins:
                del self._residents[digest]
                used -= one.adapter.nbytes
                logger.info("adapter %s evicted", digest[:12])
        return True

    def check(self, pins: Mapping[str, int]) -> None:
        """Raise AssertionError unless pins match those of the sequences and the budget is not exceeded."""
        held = {digest: resident.pins for digest, resident in self._residents.items() if resident.pins}
        assert held == {digest: count for digest, count in pins.items() if count}, "pins differ from running sequences"
        assert self.used_bytes <= self._budget_bytes, "over budget"


def _check_scalable(mix: Mix, found: Mapping[str, LoadedAdapter]) -> None:
    for one in mix:
        if not found[one.ref.digest].scalable and (len(mix) > 1 or one.scale != 1):
            raise AdapterUseError(
                f"adapter {one.ref.digest[:12]} replaces parts of the base (DoRA, norms or table rows), so it "
                "can only be used alone and with scale 1"
            )


def _loaded_adapter(read: _Read) -> LoadedAdapter:
    """The adapter of a finished read. Every failure is raised as AdapterError."""
    try:
        adapter = read.future.result()
    except AdapterError:
        raise
    except Exception as error:  # a fault of the machine or of ours; other requests continue
        logger.exception("adapter %s could not be read", read.ref.digest[:12])
        folder = read.ref.folder
        raise AdapterError(f"adapter in {folder} could not be read: {type(error).__name__}: {error}") from error
    if adapter.digest != read.ref.digest:
        raise AdapterError(
            f"adapter in {read.ref.folder} has digest {adapter.digest}, not {read.ref.digest}: its files changed"
        )
    return adapter
