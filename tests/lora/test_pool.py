from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.errors import AdapterError, AdapterUseError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.pool import READ_AHEAD, AcquireResult, AdapterPool, LoadedAdapter, Mix
from intaglio.ops import AdapterTensors, LoraPair
from intaglio.request import AdapterRef, ScaledAdapter

DEADLINE_S = 30


def adapter(rank: int) -> LoadedAdapter:
    """8 * rank float32 values: 32 * rank bytes."""
    pair = LoraPair(np.full((rank, 4), rank, np.float32), np.ones((4, rank), np.float32))
    read = LoraAdapter.of(AdapterTensors({(0, "self_attn.q_proj"): pair}))
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


def alone(reference: AdapterRef) -> list[ScaledAdapter]:
    return [ScaledAdapter(reference)]


def mix(names: str, scale: float = 1.0) -> list[ScaledAdapter]:
    return [ScaledAdapter(ref(name), scale) for name in names]


def acquire(pool: AdapterPool, reference: AdapterRef, *others: AdapterRef) -> AcquireResult:
    """The result for an adapter once it has been read, while others are wanted too."""
    return acquire_mix(pool, alone(reference), *(alone(other) for other in others))


def acquire_mix(pool: AdapterPool, wanted: Mix, *others: Mix) -> AcquireResult:
    for _ in range(1000):  # each try waits for the reader
        pool.prepare([wanted, *others], idle=True)
        result = pool.acquire(wanted)
        if result is not AcquireResult.LOADING:
            return result
    raise AssertionError(f"{wanted} were never read")


def test_the_least_recently_used_adapter_is_evicted_first_and_pinned_ones_stay() -> None:
    pool = AdapterPool(32 * 6, load)
    for name in "123":
        assert acquire(pool, ref(name)) is AcquireResult.ACQUIRED
    pool.release(mix("1"))
    pool.release(mix("2"))
    assert acquire(pool, ref("1")) is AcquireResult.ACQUIRED, "used again"
    pool.release(mix("1"))
    assert acquire(pool, ref("2")) is AcquireResult.ACQUIRED
    assert acquire(pool, ref("4")) is AcquireResult.NO_CAPACITY, "2 and 3 are pinned: one byte too many is one too many"
    pool.release(mix("2"))
    pool.release(mix("3"))
    assert acquire(pool, ref("3")) is AcquireResult.ACQUIRED
    assert acquire(pool, ref("4")) is AcquireResult.NO_CAPACITY
    assert acquire(pool, ref("1")) is AcquireResult.ACQUIRED


def test_an_adapter_larger_than_the_budget_is_refused_with_both_numbers() -> None:
    with pytest.raises(AdapterUseError, match=r"224 bytes.*adapter_cache_bytes = 100"):
        acquire(AdapterPool(100, load), ref("7"))


def test_files_that_are_not_the_verified_ones_are_refused() -> None:
    with pytest.raises(AdapterError, match="its files changed"):
        acquire(AdapterPool(1000, load), AdapterRef("0" * 64, "1"))


def test_one_adapter_in_two_folders_is_judged_by_the_folder_that_is_asked_for() -> None:
    pool = AdapterPool(1000, load)
    good, changed = ref("1"), AdapterRef(ref("1").digest, "2")
    with pytest.raises(AdapterError, match="its files changed"):
        acquire(pool, changed, good)
    assert acquire(pool, good) is AcquireResult.ACQUIRED


@pytest.mark.parametrize("fault", [PermissionError(13, "not yours"), MemoryError("4 GB")])
def test_a_failed_read_is_reported_with_the_adapter_and_its_folder(fault: Exception) -> None:
    def failing(reference: AdapterRef) -> LoadedAdapter:
        if reference.folder == "1":
            raise fault
        return load(reference)

    pool = AdapterPool(1000, failing)
    with pytest.raises(AdapterError, match=f"adapter in 1 could not be read: {type(fault).__name__}"):
        acquire(pool, ref("1"))
    assert acquire(pool, ref("2")) is AcquireResult.ACQUIRED


def test_an_adapter_that_is_being_read_does_not_hold_up_others(disk: SlowDisk) -> None:
    pool = AdapterPool(1000, disk)
    disk.let_through("2")
    assert acquire(pool, ref("2")) is AcquireResult.ACQUIRED
    pool.prepare([mix("1"), mix("2")], idle=True)
    assert pool.acquire(mix("1")) is AcquireResult.LOADING
    assert pool.acquire(mix("2")) is AcquireResult.ACQUIRED
    disk.let_through("1")
    assert acquire(pool, ref("1")) is AcquireResult.ACQUIRED
    assert disk.asked == ["2", "1"], "each was read once"


def test_an_adapter_without_capacity_is_not_read_again() -> None:
    asked = []

    def counting(reference: AdapterRef) -> LoadedAdapter:
        asked.append(reference.folder)
        return load(reference)

    pool = AdapterPool(32 * 7, counting)
    assert acquire(pool, ref("5")) is AcquireResult.ACQUIRED
    for _ in range(3):
        assert acquire(pool, ref("4")) is AcquireResult.NO_CAPACITY
    pool.release(mix("5"))
    assert acquire(pool, ref("4")) is AcquireResult.ACQUIRED
    assert asked == ["5", "4"]


def test_at_most_read_ahead_adapters_are_read_in_advance() -> None:
    asked = []

    def counting(reference: AdapterRef) -> LoadedAdapter:
        asked.append(reference.folder)
        return load(reference)

    pool = AdapterPool(1000, counting)
    everybody = [mix(name) for name in "1234567"]
    for _ in range(3):
        pool.prepare(everybody, idle=False)
    for wanted in everybody[:READ_AHEAD]:
        assert acquire_mix(pool, wanted, *everybody[:READ_AHEAD]) is AcquireResult.ACQUIRED
    assert sorted(asked) == ["1", "2", "3", "4"]


def test_the_adapters_of_the_first_request_are_read_first_even_while_others_wait_for_capacity() -> None:
    """As when an interactive request comes before those of a batch."""
    pool = AdapterPool(1000, load)
    batch = [mix(name) for name in "1234"]
    for _ in range(READ_AHEAD):
        pool.prepare(batch, idle=True)
    for _ in range(1000):
        pool.prepare([mix("7"), *batch], idle=False)
        if pool.acquire(mix("7")) is AcquireResult.ACQUIRED:
            break
    pool.check({ref("7").digest: 1})
    for wanted in batch:
        assert acquire_mix(pool, wanted, *batch) is AcquireResult.ACQUIRED


def test_reads_for_requests_that_are_gone_are_dropped(disk: SlowDisk) -> None:
    pool = AdapterPool(1000, disk)
    pool.prepare([mix(name) for name in "1234"], idle=False)
    for _ in range(READ_AHEAD):
        assert disk.begun.acquire(timeout=DEADLINE_S)
    pool.prepare([mix("5"), mix("6")], idle=False)  # every reader is busy: these wait
    pool.prepare([mix("7")], idle=False)
    disk.let_through("17")
    assert acquire(pool, ref("7")) is AcquireResult.ACQUIRED
    assert sorted(disk.asked) == ["1", "2", "3", "4", "7"]


def test_a_slow_adapter_keeps_one_reader_however_often_it_is_asked_for_and_aborted(disk: SlowDisk) -> None:
    pool = AdapterPool(1000, disk)
    pool.prepare([mix("1")], idle=False)
    assert disk.begun.acquire(timeout=DEADLINE_S)
    for _ in range(READ_AHEAD):
        pool.prepare([], idle=False)
        pool.prepare([mix("1")], idle=False)
    disk.let_through("2")
    assert acquire(pool, ref("2")) is AcquireResult.ACQUIRED
    assert disk.asked == ["1", "2"]


# -- several in one request


def test_a_mix_gets_all_of_its_adapters_or_none_of_them() -> None:
    pool = AdapterPool(32 * 7, load)
    assert acquire_mix(pool, mix("5")) is AcquireResult.ACQUIRED
    assert acquire_mix(pool, mix("12")) is AcquireResult.NO_CAPACITY, "5 + 1 + 2 are one too many"
    pool.check({ref("5").digest: 1})
    assert acquire_mix(pool, mix("2")) is AcquireResult.ACQUIRED
    assert acquire_mix(pool, mix("25")) is AcquireResult.ACQUIRED, "both are there already"
    pool.check({ref("5").digest: 2, ref("2").digest: 2})


def test_two_mixes_that_share_an_adapter_hold_one_copy_of_it() -> None:
    asked = []

    def counting(reference: AdapterRef) -> LoadedAdapter:
        asked.append(reference.folder)
        return load(reference)

    pool = AdapterPool(32 * 6, counting)
    assert acquire_mix(pool, mix("12"), mix("23", 0.5)) is AcquireResult.ACQUIRED
    assert acquire_mix(pool, mix("23", 0.5)) is AcquireResult.ACQUIRED
    assert (pool.used_bytes, sorted(asked)) == (32 * 6, ["1", "2", "3"])
    pool.check({ref("1").digest: 1, ref("2").digest: 2, ref("3").digest: 1})
    pool.release(mix("12"))
    assert acquire_mix(pool, mix("1")) is AcquireResult.ACQUIRED
    pool.release(mix("1"))
    assert acquire_mix(pool, mix("4")) is AcquireResult.NO_CAPACITY, "the other mix still has 2 and 3"
    pool.release(mix("23", 0.5))
    assert acquire_mix(pool, mix("4")) is AcquireResult.ACQUIRED
    pool.check({ref("4").digest: 1})


def test_the_resident_adapters_of_a_mix_are_not_evicted_for_its_others() -> None:
    pool = AdapterPool(32 * 6, load)
    for name in "123":
        assert acquire_mix(pool, mix(name)) is AcquireResult.ACQUIRED
        pool.release(mix(name))
    assert acquire_mix(pool, mix("15")) is AcquireResult.ACQUIRED, "1 is the oldest"
    pool.check({ref("1").digest: 1, ref("5").digest: 1})


def test_two_mixes_that_do_not_fit_together_run_one_after_the_other() -> None:
    pool = AdapterPool(32 * 11, load)
    first, second = mix("1235"), mix("47")
    assert acquire_mix(pool, first, second) is AcquireResult.ACQUIRED
    assert acquire_mix(pool, second, first) is AcquireResult.NO_CAPACITY
    pool.release(first)
    assert acquire_mix(pool, second, first) is AcquireResult.ACQUIRED
    assert acquire_mix(pool, first, second) is AcquireResult.NO_CAPACITY
    pool.release(second)
    assert acquire_mix(pool, first) is AcquireResult.ACQUIRED


def test_a_mix_of_more_adapters_than_are_read_ahead_is_read_when_it_is_first() -> None:
    pool = AdapterPool(1000, load)
    assert acquire_mix(pool, mix("1234567"), mix("1")) is AcquireResult.ACQUIRED


def test_a_mix_larger_than_the_budget_is_refused_naming_its_adapters() -> None:
    pool = AdapterPool(32 * 6, load)
    words = f"{ref('3').digest[:12]} and {ref('4').digest[:12]} need 224 bytes.*adapter_cache_bytes = 192"
    with pytest.raises(AdapterUseError, match=words):
        acquire_mix(pool, mix("34"))
    assert acquire_mix(pool, mix("3")) is AcquireResult.ACQUIRED
    assert pool.used_bytes == 96


def test_one_bad_adapter_ends_the_request_and_the_others_stay_usable() -> None:
    pool = AdapterPool(1000, load)
    changed = ScaledAdapter(AdapterRef("0" * 64, "1"))
    with pytest.raises(AdapterError, match="its files changed"):
        acquire_mix(pool, [*mix("23"), changed])
    assert acquire_mix(pool, mix("23")) is AcquireResult.ACQUIRED


@pytest.mark.parametrize("wanted", [mix("6", 0.5), mix("67"), mix("6", -1.0)], ids=["scaled", "mixed", "reversed"])
def test_an_adapter_that_is_not_additive_is_used_alone_and_unscaled(wanted: list[ScaledAdapter]) -> None:
    def no_sum(reference: AdapterRef) -> LoadedAdapter:
        return replace(load(reference), scalable=reference.folder != "6")

    pool = AdapterPool(1000, no_sum)
    with pytest.raises(AdapterUseError, match=f"{ref('6').digest[:12]} replaces parts of the base"):
        acquire_mix(pool, wanted)
    assert acquire_mix(pool, mix("6")) is AcquireResult.ACQUIRED
    assert acquire_mix(pool, mix("7", 0.5)) is AcquireResult.ACQUIRED


def test_one_adapter_in_two_folders_is_read_once(disk: SlowDisk) -> None:
    pool = AdapterPool(1000, disk)
    here, there = ref("1"), AdapterRef(ref("1").digest, "somewhere else")
    pool.prepare([alone(here), alone(there)], idle=False)
    pool.prepare([alone(there), alone(here)], idle=False)
    disk.let_through("1")
    assert acquire(pool, there, here) is AcquireResult.ACQUIRED
    assert acquire(pool, here) is AcquireResult.ACQUIRED
    assert disk.asked == ["1"]
    pool.check({here.digest: 2})


@given(
    budget=st.integers(32 * 7, 32 * 20),
    acts=st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from("1234567"), min_size=1, max_size=3)), max_size=50),
)
def test_pins_and_budget_hold_after_every_act(budget: int, acts: list[tuple[bool, set[str]]]) -> None:
    pool = AdapterPool(budget, load)
    taken: list[str] = []
    for take, members in acts:
        names = "".join(sorted(members))
        if take and sum(map(int, names)) * 32 <= budget:
            if acquire_mix(pool, mix(names)) is AcquireResult.ACQUIRED:
                taken.append(names)
        elif names in taken:
            pool.release(mix(names))
            taken.remove(names)
        pool.check(Counter(ref(name).digest for names in taken for name in names))
