from __future__ import annotations

from intaglio.engine.engine import EngineLimits
from intaglio.request import AdapterRef
from tests.helpers.engines import TinyModel, request, run

LIMITS = EngineLimits(max_running=2, step_tokens=64, kv_block_size=4, kv_cache_bytes=1 << 20)
TIGHT = EngineLimits(max_running=8, step_tokens=16, kv_block_size=4, kv_cache_bytes=250_000)
LENGTH: dict[str, object] = {"max_tokens": 4, "ignore_stop_tokens": True}


def prompt(length: int, first: int = 5) -> list[int]:
    return [2, *range(first, first + length - 1)]


def test_running_and_waiting_requests_and_their_adapters_are_counted(
    tiny: TinyModel, adapters: list[AdapterRef]
) -> None:
    engine = tiny.engine(LIMITS)
    run(engine, [request("first", prompt(9), adapters[0], **LENGTH)])  # its adapter stays in memory
    for name, adapter in (("base", None), ("adapted", adapters[0]), ("waits", adapters[0])):
        engine.add(request(name, prompt(9), adapter, **LENGTH))
    engine.step()
    status = engine.status()
    assert (status.running, status.running_on_base, status.waiting) == (2, 1, 1)
    (resident,) = status.adapters
    assert (resident.digest, resident.num_running) == (adapters[0].digest, 1)
    assert 0 < resident.num_bytes <= status.adapter_cache_bytes
    assert 0 < status.kv_used_bytes <= status.kv_cache_bytes


def test_counters_add_up_what_was_computed_and_what_the_prefix_cache_had(tiny: TinyModel) -> None:
    engine = tiny.engine(LIMITS)
    run(engine, [request("first", prompt(9), **LENGTH)])
    first = engine.status()
    assert (first.computed_prompt_tokens, first.cached_prompt_tokens, first.completion_tokens) == (9, 0, 4)
    assert (first.running, first.kv_used_bytes) == (0, 0)
    assert first.kv_prefix_bytes > 0, "its full blocks are kept"
    run(engine, [request("second", prompt(9), **LENGTH)])
    second = engine.status()
    assert (second.computed_prompt_tokens, second.cached_prompt_tokens, second.completion_tokens) == (9 + 1, 8, 8)
    assert first.steps == 4
    assert second.steps == 8


def test_a_prompt_that_is_computed_in_pieces_is_counted_once(tiny: TinyModel) -> None:
    engine = tiny.engine(EngineLimits(max_running=2, step_tokens=8, kv_block_size=4, kv_cache_bytes=1 << 20))
    run(engine, [request("long", prompt(30), **LENGTH)])
    assert engine.status().computed_prompt_tokens == 30


def test_preemptions_are_counted_with_the_tokens_that_are_computed_again(tiny: TinyModel) -> None:
    engine = tiny.engine(TIGHT)
    run(engine, [request(str(i), prompt(5, 5 + 20 * i), max_tokens=20, ignore_stop_tokens=True) for i in range(6)])
    status = engine.status()
    assert status.preemptions == engine.scheduler.num_preemptions > 0
    assert status.computed_prompt_tokens + status.cached_prompt_tokens > 6 * 5
