from __future__ import annotations

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.engine.kv_cache import least_cache_bytes, plan_blocks
from intaglio.engine.memory.available import AvailableMemory
from intaglio.engine.memory.plan import LEAST_CACHE_BYTES, EngineNeeds, fit_caches
from intaglio.errors import NotEnoughMemoryError
from intaglio.model.config import config_from_hf
from intaglio.model.footprint import Footprint
from intaglio.settings import Settings, load_settings
from tests.helpers.checkpoints import Family, tiny_config

MB = 10**6
NEEDS = EngineNeeds(Footprint(weights=500 * MB, loading=100 * MB), working=250 * MB, file=300 * MB, least_kv=5 * MB)
DEFAULT = 1 << 30


def fit(available_mb: float, *needs: EngineNeeds, counts_mappings: bool = False, **options: int) -> Settings:
    available = AvailableMemory(int(available_mb * MB), "memory of a test", counts_mappings)
    return fit_caches(needs or [NEEDS], load_settings(**options), available)


def refused(available_mb: float, *needs: EngineNeeds, counts_mappings: bool = False, **options: int) -> str:
    with pytest.raises(NotEnoughMemoryError) as raised:
        fit(available_mb, *needs, counts_mappings=counts_mappings, **options)
    return str(raised.value)


def test_settings_stay_as_they_are_if_everything_fits(caplog: pytest.LogCaptureFixture) -> None:
    settings = fit(3000)
    assert (settings.kv_cache_bytes, settings.adapter_cache_bytes) == (DEFAULT, DEFAULT)
    assert caplog.records == []


def test_caches_of_the_default_size_shrink_to_what_is_left_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        settings = fit(1550)  # 800 are left for two equal caches
    assert (settings.kv_cache_bytes, settings.adapter_cache_bytes) == (400 * MB, 400 * MB)
    assert caplog.messages == [
        "1,550 MB available (memory of a test): "
        "kv_cache_bytes 400 MB instead of 1,074 MB, adapter_cache_bytes 400 MB instead of 1,074 MB"
    ]


def test_a_cache_whose_size_was_given_keeps_it_and_the_other_shrinks(caplog: pytest.LogCaptureFixture) -> None:
    settings = fit(1550, kv_cache_bytes=600 * MB)
    assert (settings.kv_cache_bytes, settings.adapter_cache_bytes) == (600 * MB, 200 * MB)
    assert "kv_cache_bytes" not in caplog.text


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
    heavy = EngineNeeds(Footprint(weights=500 * MB, loading=900 * MB), working=250 * MB, file=0, least_kv=0)
    message = refused(1600, heavy)
    assert "1,650 MB needed" in message
    assert "loading them 900 MB for a moment" in message
    settings = fit(1650, heavy)
    assert settings.kv_cache_bytes + settings.adapter_cache_bytes == pytest.approx(900 * MB, abs=2)


def test_the_mapped_checkpoint_counts_only_where_mappings_do() -> None:
    given = {"kv_cache_bytes": 70 * MB, "adapter_cache_bytes": 70 * MB}
    assert fit(1100, **given)
    assert "loading them 400 MB" in refused(1100, counts_mappings=True, **given)
    assert fit(1150, counts_mappings=True, **given)


def test_several_models_share_the_memory_and_each_has_caches_of_its_own() -> None:
    settings = fit(2300, NEEDS, NEEDS)  # 800 are left for four equal caches
    assert (settings.kv_cache_bytes, settings.adapter_cache_bytes) == (200 * MB, 200 * MB)
    message = refused(2300, NEEDS, NEEDS, kv_cache_bytes=1000 * MB, adapter_cache_bytes=100 * MB)
    assert "3,700 MB needed" in message
    assert "The sum of 2 models: weights 1,000 MB" in message
    assert message.endswith("Lower kv_cache_bytes or adapter_cache_bytes by 700 MB")  # in each of the two


def test_the_kv_cache_shrinks_to_one_long_sequence_at_most() -> None:
    large = EngineNeeds(Footprint(500 * MB, 0), 250 * MB, 0, least_kv=600 * MB)
    least = 500 + 250 + 600 + LEAST_CACHE_BYTES / MB
    assert fit(least + 1, large).kv_cache_bytes >= 600 * MB
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
    needs = [EngineNeeds(Footprint(weights_mb * MB, 0), 250 * MB, 0, 0)] * engines
    given_mb = {"kv_cache_bytes": kv_mb, "adapter_cache_bytes": adapter_mb}
    options = {name: size * MB for name, size in given_mb.items() if size is not None}
    fixed = engines * (weights_mb + 250) * MB
    try:
        settings = fit(available_mb, *needs, **options)
    except NotEnoughMemoryError:
        least = sum(options.get(name, LEAST_CACHE_BYTES) for name in given_mb)
        assert fixed + engines * least > available_mb * MB
        return
    assert fixed + engines * (settings.kv_cache_bytes + settings.adapter_cache_bytes) <= available_mb * MB
    assert all(getattr(settings, name) == size for name, size in options.items())
    assert all(LEAST_CACHE_BYTES <= getattr(settings, name) <= DEFAULT for name in given_mb if name not in options)


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3_text"])
@pytest.mark.parametrize(("block_size", "step_tokens"), [(1, 1), (4, 64), (16, 512), (7, 133)])
def test_the_smallest_kv_cache_is_enough_for_the_engine(family: Family, block_size: int, step_tokens: int) -> None:
    config = config_from_hf(tiny_config(family))
    least = least_cache_bytes(config, block_size, step_tokens)
    blocks = plan_blocks(config, cache_bytes=least, block_size=block_size, max_running=32, step_tokens=step_tokens)
    assert all(blocks)
