"""The adapters held in memory: read when first needed, pinned while a sequence runs with them, evicted oldest first.

    absent  --prepare-->  being read  --acquire-->  resident and pinned  --release-->  resident  --eviction-->  absent

A request may need several at once. It gets all of them or none, so two requests never hold what the other waits for.

A budget of bytes bounds what is resident; beside it lie no more than READ_AHEAD adapters that are being read or have
no place yet, or those of the first request in the queue, if it needs more. Adapters are known by digest, wherever their
files lie; names are for others. They are read in threads, so that one on a slow disk holds up only its own requests.
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
# A packed adapter of a small base is read within this time, so its first request still joins the next step; what takes
# longer is not waited for.
PATIENCE_S = 0.01
# While nothing else can run: how long to wait for an adapter before looking for new messages.
IDLE_WAIT_S = 0.05

Mix = Sequence[ScaledAdapter]  # what one request needs, each digest once


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter as it lies in memory.

    prepared  its matrices in the form that the model's forward takes
    scalable  it only adds to what the base gives, so that it can be scaled and mixed
    """

    digest: str
    rank: int
    nbytes: int
    prepared: Any
    scalable: bool = True


class Place(Enum):
    """What `acquire` found for a request's adapters."""

    TAKEN = auto()  # they are pinned
    COMING = auto()  # one is being read
    NONE = auto()  # the pinned ones leave no room


@dataclass(slots=True)
class _Resident:
    adapter: LoadedAdapter
    pins: int = 0


@dataclass(frozen=True, slots=True)
class _Read:
    """ref: whose folder is read."""

    ref: AdapterRef
    future: Future[LoadedAdapter]


class AdapterPool:
    """Resident adapters under `budget_bytes`, least recently used first out; pinned ones stay.

    load  reads an adapter from its folder and prepares it; raises AdapterError. Called in threads that read
    """

    def __init__(self, budget_bytes: int, load: Callable[[AdapterRef], LoadedAdapter]) -> None:
        self._budget_bytes = budget_bytes
        self._load = load
        self._residents: OrderedDict[str, _Resident] = OrderedDict()  # least recently used first
        self._reads: dict[str, _Read] = {}
        self._readers = ThreadPoolExecutor(READ_AHEAD, "adapter-reader")

    @property
    def used_bytes(self) -> int:
        return sum(resident.adapter.nbytes for resident in self._residents.values())

    # -- reading

    def prepare(self, mixes: Sequence[Mix], *, idle: bool) -> None:
        """Have those adapters read that are not resident, the first ones first; drop other reads.

        mixes  what each of the next requests needs, in the order of the queue
        idle   nobody runs or waits but for these: if none of them has all it needs, wait for one adapter, though not
               for long. Otherwise wait only for those whose reading begins now, and hardly.
        """
        missing = [self._missing(mix) for mix in mixes]
        most = max(READ_AHEAD, len(missing[0]) if missing else 0)
        wanted: dict[str, AdapterRef] = {}
        for ref in (ref for refs in missing for ref in refs):
            if len(wanted) < most:
                wanted.setdefault(ref.digest, ref)
        # Also what was read for those further behind: they must not keep the first one waiting for a place to read to.
        self._drop_reads_but(wanted.keys())
        new = []
        for digest, ref in wanted.items():
            if digest not in self._reads and len(self._reads) < most:
                self._reads[digest] = _Read(ref, self._readers.submit(self._load, ref))
                new.append(self._reads[digest].future)
        if idle and mixes and not any(self._is_read(refs) for refs in missing):
            wait([read.future for read in self._reads.values() if not read.future.done()], IDLE_WAIT_S, FIRST_COMPLETED)
        elif new:
            wait(new, PATIENCE_S)

    def _missing(self, mix: Mix) -> list[AdapterRef]:
        return [one.ref for one in mix if one.ref.digest not in self._residents]

    def _is_read(self, refs: Sequence[AdapterRef]) -> bool:
        reads = [self._reads.get(ref.digest) for ref in refs]
        return all(read is not None and read.future.done() for read in reads)

    def _drop_reads_but(self, wanted: Set[str]) -> None:
        for digest in self._reads.keys() - wanted:
            # One that is at work keeps its place until it ends: else a slow one, asked for again, took another thread.
            if self._reads[digest].future.cancel() or self._reads[digest].future.done():
                del self._reads[digest]

    # -- places

    def acquire(self, mix: Mix) -> Place:
        """Pin the adapters of one request, each of which is resident or has been read since `prepare`; all or none.

        Raises AdapterError if the files of one are bad or are not the ones that were verified, if it cannot be used as
        asked, or if they exceed the whole budget together.
        """
        coming = False
        found: dict[str, LoadedAdapter] = {}
        for one in mix:
            adapter = self._find(one.ref)
            if adapter is None:
                coming = True
            else:
                found[one.ref.digest] = adapter
        if coming:
            return Place.COMING
        self._check(mix, found)
        if not self._make_room(found):
            return Place.NONE  # what was read is kept for the next try
        for digest, adapter in found.items():
            if digest not in self._residents:
                del self._reads[digest]
                self._residents[digest] = _Resident(adapter)
                logger.info("adapter %s loaded: rank %d, %d bytes", digest[:12], adapter.rank, adapter.nbytes)
            self._residents[digest].pins += 1
            self._residents.move_to_end(digest)
        return Place.TAKEN

    def release(self, mix: Mix) -> None:
        """One pin less for each."""
        for one in mix:
            resident = self._residents[one.ref.digest]
            assert resident.pins > 0, f"adapter {one.ref.digest} released more often than acquired"
            resident.pins -= 1

    def get(self, digest: str) -> LoadedAdapter:
        """A pinned adapter."""
        return self._residents[digest].adapter

    def _find(self, ref: AdapterRef) -> LoadedAdapter | None:
        """The adapter if it is resident or has been read, from whatever folder. Raises AdapterError if this one's
        files are bad.
        """
        resident = self._residents.get(ref.digest)
        if resident is not None:
            return resident.adapter
        read = self._reads.get(ref.digest)
        if read is None or not read.future.done():
            return None
        try:
            return _result(read)
        except AdapterError:
            del self._reads[ref.digest]
            if read.ref.folder != ref.folder:  # what is wrong there says nothing about the files here
                return None
            raise

    def _check(self, mix: Mix, found: Mapping[str, LoadedAdapter]) -> None:
        for one in mix:
            if not found[one.ref.digest].scalable and (len(mix) > 1 or one.scale != 1):
                raise AdapterUseError(
                    f"adapter {one.ref.digest[:12]} puts something in the place of the base's (DoRA, norms or table "
                    "rows), so it can only be used alone and with scale 1"
                )
        nbytes = sum(adapter.nbytes for adapter in found.values())
        if nbytes > self._budget_bytes:
            names = " and ".join(digest[:12] for digest in found)
            these, take = ("adapters", "take") if len(found) > 1 else ("adapter", "takes")
            raise AdapterUseError(
                f"{these} {names} {take} {nbytes} bytes in memory, more than adapter_cache_bytes = {self._budget_bytes}"
            )

    def _make_room(self, staying: Mapping[str, LoadedAdapter]) -> bool:
        """Evict until these fit beside the pinned ones."""
        others = {digest: one for digest, one in self._residents.items() if digest not in staying}
        room = self._budget_bytes - sum(adapter.nbytes for adapter in staying.values())
        if sum(one.adapter.nbytes for one in others.values() if one.pins) > room:
            return False
        used = sum(one.adapter.nbytes for one in others.values())
        for digest, one in others.items():
            if used <= room:
                break
            if not one.pins:
                del self._residents[digest]
                used -= one.adapter.nbytes
                logger.info("adapter %s evicted", digest[:12])
        return True

    def check(self, pins: Mapping[str, int]) -> None:
        """Raise AssertionError unless pins match those held by sequences and the budget is kept."""
        held = {digest: resident.pins for digest, resident in self._residents.items() if resident.pins}
        assert held == {digest: count for digest, count in pins.items() if count}, "pins differ from running sequences"
        assert self.used_bytes <= self._budget_bytes, "over budget"


def _result(read: _Read) -> LoadedAdapter:
    """What a read gave. Raises AdapterError for whatever went wrong."""
    try:
        adapter = read.future.result()
    except AdapterError:
        raise
    except Exception as error:  # the machine's fault or ours, but no reason to take others along
        logger.exception("adapter %s could not be read", read.ref.digest[:12])
        folder = read.ref.folder
        raise AdapterError(f"adapter in {folder} could not be read: {type(error).__name__}: {error}") from error
    if adapter.digest != read.ref.digest:
        raise AdapterError(
            f"adapter in {read.ref.folder} has digest {adapter.digest}, not {read.ref.digest}: its files changed"
        )
    return adapter
