from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.engine.block_pool import BlockPool

ACTS = st.lists(st.tuples(st.sampled_from(["allocate", "release", "key", "share"]), st.integers(0, 6)), max_size=60)


@given(num_blocks=st.sampled_from([1, 2, 3, 7]), acts=ACTS)
def test_counts_and_keys_agree_after_every_act(num_blocks: int, acts: list[tuple[str, int]]) -> None:
    pool = BlockPool(num_blocks)
    held: list[int] = []
    for act, number in acts:
        if act == "allocate" and pool.num_idle:
            held.append(pool.allocate())
        elif act == "release" and held:
            pool.release(held.pop(number % len(held)))
        elif act == "key" and held:
            pool.set_key(held[number % len(held)], bytes([number]))
        elif act == "share" and (block := pool.find(bytes([number]))) is not None:
            pool.retain(block)
            held.append(block)
        pool.check(held)
        assert pool.num_idle == num_blocks - len(set(held))


def test_a_released_block_with_a_key_is_found_again_until_it_is_needed() -> None:
    pool = BlockPool(2)
    block = pool.allocate()
    pool.set_key(block, b"prefix")
    pool.release(block)
    assert pool.find(b"prefix") == block
    assert pool.allocate() != block, "the block without a key goes first"
    assert pool.find(b"prefix") == block
    assert pool.allocate() == block
    assert pool.find(b"prefix") is None


def test_the_least_recently_used_prefix_is_forgotten_first() -> None:
    pool = BlockPool(3)
    blocks = [pool.allocate() for _ in range(3)]
    for block, key in zip(blocks, [b"a", b"b", b"c"], strict=True):
        pool.set_key(block, key)
    for block in blocks:
        pool.release(block)
    pool.retain(blocks[0])  # used again
    pool.release(blocks[0])
    pool.allocate()
    assert pool.find(b"b") is None
    assert pool.find(b"a") == blocks[0]


def test_releasing_twice_raises_an_assertion_error() -> None:
    pool = BlockPool(1)
    block = pool.allocate()
    pool.release(block)
    with pytest.raises(AssertionError, match="released more often"):
        pool.release(block)


def test_check_notices_a_lost_block() -> None:
    pool = BlockPool(2)
    pool.allocate()
    with pytest.raises(AssertionError, match="reference counts"):
        pool.check([])
