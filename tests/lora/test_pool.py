from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.pool import AdapterPool, LoadedAdapter
from intaglio.ops import LoraPair
from intaglio.request import AdapterRef


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


def test_the_least_recently_used_goes_first_and_pinned_ones_stay() -> None:
    pool = AdapterPool(32 * 6, load)
    for name in "123":
        assert pool.acquire(ref(name))
    pool.release(ref("1").digest)
    pool.release(ref("2").digest)
    assert pool.acquire(ref("1")), "used again"
    pool.release(ref("1").digest)
    assert pool.acquire(ref("2"))
    assert not pool.acquire(ref("4")), "2 and 3 are pinned: one byte too many is one too many"
    pool.release(ref("2").digest)
    pool.release(ref("3").digest)
    assert pool.acquire(ref("3"))
    assert not pool.acquire(ref("4"))
    assert pool.acquire(ref("1"))


def test_an_adapter_larger_than_the_budget_is_refused_with_both_numbers() -> None:
    with pytest.raises(AdapterError, match=r"224 bytes.*adapter_cache_bytes = 100"):
        AdapterPool(100, load).acquire(ref("7"))


def test_files_that_are_not_the_proven_ones_are_refused() -> None:
    with pytest.raises(AdapterError, match="its files changed"):
        AdapterPool(1000, load).acquire(AdapterRef("0" * 64, "1"))


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
            if pool.acquire(ref(name)):
                pins[digest] = pins.get(digest, 0) + 1
        elif pins.get(digest):
            pool.release(digest)
            pins[digest] -= 1
        pool.check(pins)
