from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.engine.kv_cache import CacheShape, longest_sequence
from intaglio.engine.memory.available import AvailableMemory
from intaglio.engine.memory.plan import LEAST_CACHE_BYTES, EngineMemory, EngineNeeds, plan_memory
from intaglio.errors import NotEnoughMemoryError
from intaglio.model.config import config_from_hf
from intaglio.model.footprint import Footprint
from intaglio.ops import KVFormat
from intaglio.settings import load_settings
from tests.helpers.checkpoints import Family, tiny_config

MB = 10**6
ADAPTERS = 1 << 30  # the default size of the adapter cache


def engine_needs(
    weights_mb: int = 500,
    *,
    loading_mb: int = 0,
    working_mb: int = 250,
    file_mb: int = 0,
    least_kv_mb: int = 0,
    window_kv_mb: int = 1000,
    useful_kv_mb: int = 4000,
) -> EngineNeeds:
    kv = (size * MB for size in (least_kv_mb, window_kv_mb, useful_kv_mb))
    return EngineNeeds(Footprint(weights_mb * MB, loading_mb * MB), working_mb * MB, file_mb * MB, *kv)


NEEDS = engine_needs(loading_mb=100, file_mb=300)


def fit(available_mb: float, *needs: EngineNeeds, counts_mappings: bool = False, **options: int) -> list[EngineMemory]:
    available = AvailableMemory(int(available_mb * MB), "memory of a test", counts_mappings)
    return plan_memory(needs or [NEEDS], load_settings(**options), available)


def caches_mb(engine: EngineMemory) -> tuple[float, float]:
    return (engine.kv_cache / MB, engine.adapter_cache / MB)


def refused(available_mb: float, *needs: EngineNeeds, counts_mappings: bool = False, **options: int) -> str:
    with pytest.raises(NotEnoughMemoryError) as raised:
        fit(available_mb, *needs, counts_mappings=counts_mappings, **options)
    return str(raised.value)


def test_a_kv_cache_takes_what_the_machine_can_spare_and_leaves_a_tenth() -> None:
    (engine,) = fit(4000)
    assert caches_mb(engine) == (4000 * 0.9 - 750 - ADAPTERS / MB, ADAPTERS / MB)


def test_a_kv_cache_is_never_larger_than_all_running_sequences_of_the_whole_window_need() -> None:
    assert caches_mb(fit(100_000)[0]) == (4000, ADAPTERS / MB)


def test_where_memory_is_short_both_caches_get_the_same_share_of_what_they_lack() -> None:
    (engine,) = fit(1500)
    least = LEAST_CACHE_BYTES / MB
    kv_share = (engine.kv_cache / MB - least) / (1000 - least)
    adapter_share = (engine.adapter_cache / MB - least) / (ADAPTERS / MB - least)
    assert kv_share == pytest.approx(adapter_share, abs=1e-6)
    assert engine.caches == pytest.approx(750 * MB, abs=2)


def test_a_cache_whose_size_was_given_keeps_it_and_the_other_takes_the_rest() -> None:
    assert caches_mb(fit(1550, kv_cache_bytes=600 * MB)[0]) == (600, 200)
    assert caches_mb(fit(1550, adapter_cache_bytes=100 * MB)[0]) == (700, 100)
    assert caches_mb(fit(2000, adapter_cache_bytes=100 * MB)[0]) == (1000, 100), "a tenth is left free"


def test_a_context_window_that_was_set_is_held_or_refused() -> None:
    needs = engine_needs(least_kv_mb=700, window_kv_mb=700)
    assert fit(1550, needs)[0].kv_cache >= 700 * MB
    message = refused(1500, needs)
    assert "KV cache 700 MB" in message
    assert "Use a smaller context_window, kv_format int8" in message


def test_a_given_size_that_does_not_fit_is_refused_with_the_sum_and_what_to_lower() -> None:
    assert refused(2000, kv_cache_bytes=9000 * MB, adapter_cache_bytes=300 * MB) == (
        "not enough memory: 10,050 MB needed, 2,000 MB available (memory of a test). The sum: weights 500 MB (format), "
        "KV cache 9,000 MB (kv_cache_bytes), adapter cache 300 MB (adapter_cache_bytes), "
        "working memory 250 MB (step_tokens, max_running). Lower kv_cache_bytes or adapter_cache_bytes by 8,050 MB"
    )


def test_the_caches_named_in_the_message_fit() -> None:
    message = refused(2000, kv_cache_bytes=9000 * MB)
    by = re.search(r"Lower kv_cache_bytes by ([\d,]+) MB", message)
    assert by is not None
    assert fit(2000, kv_cache_bytes=(9000 - int(by[1].replace(",", ""))) * MB)


def test_where_the_smallest_caches_do_not_fit_a_smaller_model_is_advised() -> None:
    for options in ({}, {"kv_cache_bytes": 70 * MB}):
        assert "use a smaller model, or fewer bits (format w8 or w4)" in refused(800, **options)


def test_memory_for_loading_counts_but_not_together_with_the_caches() -> None:
    heavy = engine_needs(loading_mb=900)
    message = refused(1600, heavy)
    assert "1,650 MB needed" in message
    assert "loading them 900 MB for a moment" in message
    assert fit(1650, heavy)[0].caches == pytest.approx(900 * MB, abs=2)


def test_a_window_that_was_set_is_not_blamed_where_loading_does_not_fit() -> None:
    message = refused(1600, engine_needs(loading_mb=900, least_kv_mb=200, window_kv_mb=200))
    assert "loading them 900 MB" in message
    assert "context_window" not in message


def test_where_no_limit_is_known_a_kv_cache_holds_one_window() -> None:
    (engine,) = plan_memory([NEEDS], load_settings(), AvailableMemory(sys.maxsize, "no limit is known"))
    assert caches_mb(engine) == (1000, ADAPTERS / MB)


def test_the_scores_of_attention_count_as_working_memory() -> None:
    shape, needs = cache_shape("gemma"), []
    for threads in (1, 3):
        needs.append(EngineNeeds.of(shape, Footprint(0, 0), 0, load_settings(threads=threads)))
    assert needs[1].working - needs[0].working == 2 * 4 * 32 * shape.config.context_length


def test_the_mapped_checkpoint_counts_only_where_mappings_do() -> None:
    given = {"kv_cache_bytes": 70 * MB, "adapter_cache_bytes": 70 * MB}
    assert fit(1100, **given)
    assert "loading them 400 MB" in refused(1100, counts_mappings=True, **given)
    assert fit(1150, counts_mappings=True, **given)


def test_several_models_share_the_memory_and_each_has_caches_of_its_own() -> None:
    larger = engine_needs(window_kv_mb=2000)
    first, second = fit(2300, NEEDS, larger)  # 800 are left for four caches
    assert first.caches + second.caches == pytest.approx(800 * MB, abs=4)
    assert first.adapter_cache == second.adapter_cache
    assert second.kv_cache > first.kv_cache
    message = refused(2300, NEEDS, NEEDS, kv_cache_bytes=1000 * MB, adapter_cache_bytes=100 * MB)
    assert "3,700 MB needed" in message
    assert "The sum of 2 models: weights 1,000 MB" in message
    assert message.endswith("Lower kv_cache_bytes or adapter_cache_bytes by 700 MB")  # in each of the two


def test_the_kv_cache_shrinks_to_one_long_sequence_at_most() -> None:
    large = engine_needs(least_kv_mb=600)
    least = 500 + 250 + 600 + LEAST_CACHE_BYTES / MB
    assert fit(least + 1, large)[0].kv_cache >= 600 * MB
    assert "KV cache 600 MB" in refused(least - 1, large)


@given(
    available_mb=st.integers(0, 6000),
    weights_mb=st.integers(1, 2000),
    kv_mb=st.none() | st.integers(1, 3000),
    adapter_mb=st.none() | st.integers(1, 3000),
    engines=st.integers(1, 3),
)
def test_accepted_settings_fit_and_refused_ones_do_not(
    available_mb: int, weights_mb: int, kv_mb: int | None, adapter_mb: int | None, engines: int
) -> None:
    needs = [engine_needs(weights_mb, window_kv_mb=300 * index) for index in range(engines)]
    given_mb = {"kv_cache_bytes": kv_mb, "adapter_cache_bytes": adapter_mb}
    options = {name: size * MB for name, size in given_mb.items() if size is not None}
    fixed = engines * (weights_mb + 250) * MB
    try:
        planned = fit(available_mb, *needs, **options)
    except NotEnoughMemoryError:
        least = sum(options.get(name, LEAST_CACHE_BYTES) for name in given_mb)
        assert fixed + engines * least > available_mb * MB
        return
    assert fixed + sum(engine.caches for engine in planned) <= available_mb * MB
    for engine in planned:
        sizes = {"kv_cache_bytes": engine.kv_cache, "adapter_cache_bytes": engine.adapter_cache}
        assert all(sizes[name] == size for name, size in options.items())
        assert all(size >= LEAST_CACHE_BYTES for name, size in sizes.items() if name not in options)


FAMILIES: tuple[Family, ...] = ("gemma", "gemma2", "gemma3_text")


def cache_shape(family: Family, fmt: KVFormat = "f32", block_size: int = 16, step_tokens: int = 64) -> CacheShape:
    return CacheShape(config_from_hf(tiny_config(family)), fmt, block_size, max_running=3, step_tokens=step_tokens)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("block_size", "step_tokens"), [(1, 1), (4, 64), (16, 512), (7, 133)])
def test_the_smallest_kv_cache_is_enough_for_the_engine(family: Family, block_size: int, step_tokens: int) -> None:
    shape = cache_shape(family, "f32", block_size, step_tokens)
    assert all(shape.plan_blocks(shape.least_bytes()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fmt", ["f32", "bf16", "int8"])
@pytest.mark.parametrize(("count", "length"), [(1, 5), (1, 64), (3, 64), (2, 133), (7, 1000)])
def test_the_cache_for_some_sequences_holds_them_and_not_much_more(
    family: Family, fmt: KVFormat, count: int, length: int
) -> None:
    shape = cache_shape(family, fmt)
    size = shape.bytes_for(count, length)
    blocks = shape.plan_blocks(size)
    held = longest_sequence(shape.groups, blocks, shape.block_size, 10**9)
    assert held >= count * length
    if size > shape.least_bytes():
        fewer = shape.plan_blocks(size - 2 * sum(shape.block_bytes(group) for group in shape.groups))
        assert longest_sequence(shape.groups, fewer, shape.block_size, 10**9) < count * -(-length // 16) * 16


def test_the_kinds_of_cache_hold_the_more_tokens_the_fewer_bits_they_have() -> None:
    held = {}
    for fmt in ("f32", "bf16", "int8"):
        shape = cache_shape("gemma", fmt)
        held[fmt] = longest_sequence(shape.groups, shape.plan_blocks(1 << 20), shape.block_size, 10**9)
    assert held["bf16"] == pytest.approx(2 * held["f32"], rel=0.02)
    assert 1.6 * held["bf16"] < held["int8"] < 2 * held["bf16"], "heads of 16 numbers and a scale"
