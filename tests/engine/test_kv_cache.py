from __future__ import annotations

import pytest

from intaglio.engine.kv_cache import CacheShape, KVCacheManager, longest_sequence
from intaglio.engine.sequence import Sequence
from intaglio.errors import SettingsError
from intaglio.model.config import config_from_hf
from intaglio.model.gemma import KVGroupShape
from intaglio.request import AdapterRef
from tests.helpers.checkpoints import tiny_config
from tests.helpers.engines import request

FULL, SLIDING = KVGroupShape(None, (2, 5)), KVGroupShape(8, (0, 1, 3, 4))


def manager(blocks: int = 20, block_size: int = 4) -> KVCacheManager:
    return KVCacheManager([FULL, SLIDING], [blocks, blocks], block_size)


def sequence(tokens: list[int], digest: str | None = None) -> Sequence:
    adapter = AdapterRef(digest, "unused") if digest else None
    return Sequence.from_request(request("r", tokens, adapter), num_groups=2)


def compute(cache: KVCacheManager, seq: Sequence, chunk: int) -> None:
    while seq.num_pending:
        count = min(chunk, seq.num_pending)
        cache.grow(seq, count)
        cache.commit(seq, count)
        cache.check([seq])


def test_a_sliding_group_holds_only_its_window() -> None:
    cache = manager()
    seq = sequence(list(range(50)))
    compute(cache, seq, chunk=3)
    full, sliding = seq.tables
    assert len(full.blocks) == 13
    assert sliding.first_block * 4 == 40, "position 50 sees keys from 43 on"
    assert len(sliding.blocks) == 3


@pytest.mark.parametrize("length", [1, 4, 5, 8, 9, 33])
def test_a_prefix_hit_leaves_at_least_one_token_and_takes_whole_blocks(length: int) -> None:
    cache = manager()
    first = sequence(list(range(length)))
    compute(cache, first, chunk=7)
    cache.free(first)
    again = sequence(list(range(length)))
    hit = cache.find_prefix(again)
    assert hit == (length - 1) // 4 * 4
    cache.admit(again, hit)
    cache.check([again])
    assert again.num_computed == hit


def test_a_prefix_computed_under_one_adapter_never_serves_another_or_the_base() -> None:
    cache = manager()
    tokens = list(range(20))
    compute(cache, sequence(tokens, "a" * 64), chunk=5)
    assert cache.find_prefix(sequence(tokens, "a" * 64)) == 16
    assert cache.find_prefix(sequence(tokens, "b" * 64)) == 0
    assert cache.find_prefix(sequence(tokens)) == 0


def test_a_different_token_anywhere_before_ends_the_hit() -> None:
    cache = manager()
    compute(cache, sequence(list(range(20))), chunk=5)
    assert cache.find_prefix(sequence([99, *range(1, 20)])) == 0
    assert cache.find_prefix(sequence([*range(10), 99, *range(11, 20)])) == 8


def test_the_search_for_a_prefix_looks_at_each_block_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long prompt of which half is cached must not hold up a step: it is searched for at every try to admit it."""
    cache = manager(blocks=600)
    compute(cache, sequence([1] * 1000), chunk=100)
    looked: list[bytes] = []
    for pool in cache.pools:
        find = pool.find
        monkeypatch.setattr(pool, "find", lambda key, find=find: looked.append(key) or find(key))
    assert cache.find_prefix(sequence([1] * 1000 + [2] * 1000)) == 1000
    assert len(looked) <= 2 * 500


def test_a_hit_needs_the_window_of_sliding_layers_too() -> None:
    cache = manager(blocks=20)
    first = sequence(list(range(40)))
    compute(cache, first, chunk=4)
    cache.free(first)
    # Other work takes idle blocks: first the ones that hold no prefix, then the oldest prefixes of the sliding group.
    for _ in range(19):
        cache.pools[1].allocate()
    hit = cache.find_prefix(sequence(list(range(40))))
    assert hit < 36


def test_running_sequences_share_the_blocks_of_a_common_prefix() -> None:
    cache = manager()
    first = sequence(list(range(17)))
    compute(cache, first, chunk=17)
    second = sequence(list(range(17)))
    cache.admit(second, cache.find_prefix(second))
    assert second.tables[0].blocks == first.tables[0].blocks[:4]
    cache.check([first, second])
    cache.free(first)
    cache.check([second])


def test_without_the_prefix_cache_nothing_is_found() -> None:
    cache = KVCacheManager([FULL, SLIDING], [20, 20], 4, prefix_cache=False)
    compute(cache, sequence(list(range(20))), chunk=5)
    assert cache.find_prefix(sequence(list(range(20)))) == 0


def test_too_few_bytes_are_refused_with_the_sum() -> None:
    config = config_from_hf(tiny_config("gemma3_text"))
    with pytest.raises(SettingsError, match=r"kv_cache_bytes is 70000.*needs about \d+"):
        CacheShape(config, "f32", block_size=16, max_running=4, step_tokens=128).plan_blocks(70000)


def test_the_plan_stays_within_the_bytes_given() -> None:
    config = config_from_hf(tiny_config("gemma3_text"))
    cache_bytes = 3_000_000
    blocks = CacheShape(config, "f32", block_size=4, max_running=3, step_tokens=16).plan_blocks(cache_bytes)
    per_token = 2 * config.kv_size * 4
    used = sum(count * 4 * per_token * layers for count, layers in zip(blocks, (1, 6), strict=True))
    assert used <= cache_bytes
    assert blocks[1] == 3 * (8 // 4 + 2) + 16 // 4 + 1, "windows of all sequences, and one step"


def test_the_longest_sequence_is_what_the_unwindowed_group_holds() -> None:
    assert longest_sequence([FULL, SLIDING], [10, 3], 4, context_length=1000) == 40
    assert longest_sequence([FULL, SLIDING], [10, 3], 4, context_length=30) == 30
