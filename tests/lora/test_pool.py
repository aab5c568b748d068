from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.pool import READ_AHEAD, AdapterPool, LoadedAdapter, Place
from intaglio.ops import LoraPair
from intaglio.request import AdapterRef

DEADLINE_S = 30


def adapter(rank: int) -> LoadedAdapter:
    """8 * rank float32 values: 32 * rank bytes."""
    pair = LoraPair(np.full((rank, 4), rank, np.float32), np.ones((4, rank), np.float32))
    read = LoraAdapter.from_pairs({(0, "self_attn.q_proj"): pair})
    return LoadedAdapter(read.digest, read.rank, read.nbytes, prepared=None)


ADAPTERS = {str(rank): adapter(rank) for rank in range(1, 8)}


def ref(name: str) -> AdapterRef:
    return AdapterRef(ADAPTERS[name].digest, name)


def load(reference: AdapterRef) -> LoadedAdapter:
    return ADAPTERS[reference.folder]


class SlowDisk:
    """A loader that waits until the test lets an adapter through. `asked` has the names in the order of reading."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.begun = threading.Semaphore(0)
        self._gates = {name: threading.Event() for name in ADAPTERS}

    def let_through(self, names: str) -> None:
        for name in names:
            self._gates[name].set()

    def __call__(self, reference: AdapterRef) -> LoadedAdapter:
        self.asked.append(reference.folder)
        self.begun.release()
        assert self._gates[reference.folder].wait(DEADLINE_S)
        return load(reference)


@pytest.fixture
def disk() -> Iterator[SlowDisk]:
    disk = SlowDisk()
    yield disk
    disk.let_through("1234567")


def acquire(pool: AdapterPool, reference: AdapterRef, *others: AdapterRef) -> Place:
    """What there is for an adapter once it has been read, while others are wanted too."""
    for _ in range(1000):  # each try waits for the reader
        pool.prepare([reference, *others], idle=True)
        place = pool.acquire(reference)
        if place is not Place.COMING:
            return place
    raise AssertionError(f"{reference.folder} was never read")


def test_the_least_recently_used_goes_first_and_pinned_ones_stay() -> None:
    pool = AdapterPool(32 * 6, load)
    for name in "123":
        assert acquire(pool, ref(name)) is Place.TAKEN
    pool.release(ref("1").digest)
    pool.release(ref("2").digest)
    assert acquire(pool, ref("1")) is Place.TAKEN, "used again"
    pool.release(ref("1").digest)
    assert acquire(pool, ref("2")) is Place.TAKEN
    assert acquire(pool, ref("4")) is Place.NONE, "2 and 3 are pinned: one byte too many is one too many"
    pool.release(ref("2").digest)
    pool.release(ref("3").digest)
    assert acquire(pool, ref("3")) is Place.TAKEN
    assert acquire(pool, ref("4")) is Place.NONE
    assert acquire(pool, ref("1")) is Place.TAKEN


def test_an_adapter_larger_than_the_budget_is_refused_with_both_numbers() -> None:
    with pytest.raises(AdapterError, match=r"224 bytes.*adapter_cache_bytes = 100"):
        acquire(AdapterPool(100, load), ref("7"))


def test_files_that_are_not_the_proven_ones_are_refused() -> None:
    with pytest.raises(AdapterError, match="its files changed"):
        acquire(AdapterPool(1000, load), AdapterRef("0" * 64, "1"))


def test_one_adapter_in_two_folders_is_judged_by_the_folder_that_is_asked_for() -> None:
    pool = AdapterPool(1000, load)
    good, changed = ref("1"), AdapterRef(ref("1").digest, "2")
    with pytest.raises(AdapterError, match="its files changed"):
        acquire(pool, changed, good)
    assert acquire(pool, good) is Place.TAKEN


@pytest.mark.parametrize("fault", [PermissionError(13, "not yours"), MemoryError("4 GB")])
def test_a_fault_of_the_machine_is_one_adapters_fault_by_name(fault: Exception) -> None:
    def failing(reference: AdapterRef) -> LoadedAdapter:
        if reference.folder == "1":
            raise fault
        return load(reference)

    pool = AdapterPool(1000, failing)
    with pytest.raises(AdapterError, match=f"adapter in 1 could not be read: {type(fault).__name__}"):
        acquire(pool, ref("1"))
    assert acquire(pool, ref("2")) is Place.TAKEN


def test_what_is_being_read_holds_up_nobody(disk: SlowDisk) -> None:
    pool = AdapterPool(1000, disk)
    disk.let_through("2")
    assert acquire(pool, ref("2")) is Place.TAKEN
    pool.prepare([ref("1"), ref("2")], idle=True)
    assert pool.acquire(ref("1")) is Place.COMING
    assert pool.acquire(ref("2")) is Place.TAKEN
    disk.let_through("1")
    assert acquire(pool, ref("1")) is Place.TAKEN
    assert disk.asked == ["2", "1"], "each was read once"


def test_what_found_no_room_is_not_read_again() -> None:
    asked = []

    def counting(reference: AdapterRef) -> LoadedAdapter:
        asked.append(reference.folder)
        return load(reference)

    pool = AdapterPool(32 * 7, counting)
    assert acquire(pool, ref("5")) is Place.TAKEN
    for _ in range(3):
        assert acquire(pool, ref("4")) is Place.NONE
    pool.release(ref("5").digest)
    assert acquire(pool, ref("4")) is Place.TAKEN
    assert asked == ["5", "4"]


def test_few_are_read_ahead() -> None:
    asked = []

    def counting(reference: AdapterRef) -> LoadedAdapter:
        asked.append(reference.folder)
        return load(reference)

    pool = AdapterPool(1000, counting)
    everybody = [ref(name) for name in "1234567"]
    for _ in range(3):
        pool.prepare(everybody, idle=False)
    for reference in everybody[:READ_AHEAD]:
        assert acquire(pool, reference, *everybody[:READ_AHEAD]) is Place.TAKEN
    assert sorted(asked) == ["1", "2", "3", "4"]


def test_reads_that_nobody_waits_for_any_more_are_dropped(disk: SlowDisk) -> None:
    pool = AdapterPool(1000, disk)
    pool.prepare([ref(name) for name in "1234"], idle=False)
    for _ in range(READ_AHEAD):
        assert disk.begun.acquire(timeout=DEADLINE_S)
    pool.prepare([ref("5"), ref("6")], idle=False)  # all who read are busy: these wait
    pool.prepare([ref("7")], idle=False)
    disk.let_through("17")
    assert acquire(pool, ref("7")) is Place.TAKEN
    assert sorted(disk.asked) == ["1", "2", "3", "4", "7"]


def test_a_slow_adapter_keeps_one_reader_however_often_it_is_asked_for_and_given_up(disk: SlowDisk) -> None:
    pool = AdapterPool(1000, disk)
    pool.prepare([ref("1")], idle=False)
    assert disk.begun.acquire(timeout=DEADLINE_S)
    for _ in range(READ_AHEAD):
        pool.prepare([], idle=False)
        pool.prepare([ref("1")], idle=False)
    disk.let_through("2")
    assert acquire(pool, ref("2")) is Place.TAKEN
    assert disk.asked == ["1", "2"]


@given(
    budget=st.integers(32 * 7, 32 * 20),
    acts=st.lists(st.tuples(st.booleans(), st.sampled_from("1234567")), max_size=50),
)
def test_pins_and_budget_hold_after_every_act(budget: int, acts: list[tuple[bool, str]]) -> None:
    pool = AdapterPool(budget, load)
    pins: dict[str, int] = {}
    for take, name in acts:
        digest = ref(name).digest
        if take:
            if acquire(pool, ref(name)) is Place.TAKEN:
                pins[digest] = pins.get(digest, 0) + 1
        elif pins.get(digest):
            pool.release(digest)
            pins[digest] -= 1
        pool.check(pins)
