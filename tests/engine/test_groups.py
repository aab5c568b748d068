"""Requests of one group: their prompt is computed once, whatever else happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from intaglio.engine.engine import EngineLimits
from intaglio.ops import AttentionPlan, AttentionRow, Ops
from intaglio.request import AdapterRef, EngineRequest, FinishReason, Priority
from tests.helpers.engines import Collected, TinyModel, request, run

PROMPT = [2, *range(10, 48)]  # 39 tokens: blocks of 4, the last one with three
ROOMY = EngineLimits(max_running=8, step_tokens=16, kv_block_size=4, kv_cache_bytes=1 << 23)
UNCACHED = replace(ROOMY, prefix_cache=False)


class CountingOps:
    """Another backend; `rows` is how many rows the forwards of an engine had."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops
        self._plans = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def attention_plan(self, rows: Sequence[AttentionRow], block_size: int) -> AttentionPlan:
        self._plans += sum(row.stop - row.start for row in rows)
        return self._ops.attention_plan(rows, block_size)

    @property
    def rows(self) -> int:
        return self._plans // 2  # the model has two KV groups, each with a plan of its own


def choices(
    count: int, adapter: AdapterRef | None = None, prompt: Sequence[int] = PROMPT, group: str = "g", **params: object
) -> list[EngineRequest]:
    """Requests `g0`, `g1`, ... of one group, sampled with seeds of their own."""
    given = {"temperature": 0.9, "max_tokens": 4, "ignore_stop_tokens": True} | params
    each = [request(f"{group}{number}", prompt, adapter, seed=number + 1, **given) for number in range(count)]
    return [msgspec.structs.replace(one, group=group) for one in each]


def run_counted(tiny: TinyModel, requests: Sequence[EngineRequest], limits: EngineLimits) -> tuple[Collected, int]:
    """The outputs, and how many rows were computed for them."""
    ops = CountingOps(tiny.ops)
    return run(tiny.engine(limits, ops=ops), requests), ops.rows


def one_by_one(tiny: TinyModel, requests: Sequence[EngineRequest]) -> Collected:
    """What each gets in an engine of its own."""
    collected = Collected()
    for one in requests:
        alone = run(tiny.engine(UNCACHED), [msgspec.structs.replace(one, group=None)])
        collected.tokens |= alone.tokens
        collected.prompt_logprobs |= alone.prompt_logprobs
    return collected


@pytest.mark.parametrize("limits", [ROOMY, UNCACHED], ids=["prefix-cache", "no-prefix-cache"])
@pytest.mark.parametrize("max_tokens", [1, 4])
def test_a_prompt_is_computed_once_and_each_request_gets_what_it_gets_alone(
    tiny: TinyModel, adapters: list[AdapterRef], limits: EngineLimits, max_tokens: int
) -> None:
    requests = choices(8, adapters[0], max_tokens=max_tokens)
    got, rows = run_counted(tiny, requests, limits)
    assert rows == len(PROMPT) + 7 + 8 * (max_tokens - 1), "its last token for each of the other seven too"
    assert [got.cached[one.request_id] for one in requests] == [0, *[len(PROMPT) - 1] * 7]
    assert got.tokens == one_by_one(tiny, requests).tokens
    assert len({tuple(tokens) for tokens in got.tokens.values()}) > 1, "the seeds differ"


def test_requests_without_a_group_compute_their_prompts_themselves(tiny: TinyModel) -> None:
    """Otherwise the counts above would say nothing."""
    requests = [msgspec.structs.replace(one, group=None) for one in choices(8, max_tokens=1)]
    _, rows = run_counted(tiny, requests, UNCACHED)
    assert rows == 8 * len(PROMPT)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 16, 17, 33])
def test_prompts_of_any_length_are_shared(tiny: TinyModel, length: int) -> None:
    requests = choices(3, prompt=PROMPT[:length], max_tokens=6)
    got, rows = run_counted(tiny, requests, UNCACHED)
    assert rows == length + 2 + 3 * 5
    assert got.tokens == one_by_one(tiny, requests).tokens


def test_two_groups_and_a_single_request_do_not_hinder_each_other(tiny: TinyModel) -> None:
    """The shorter prompt is done first, though its requests stand behind those of the longer one."""
    requests = [*choices(3), *choices(3, prompt=PROMPT[:7], group="h"), request("one", PROMPT[:5], max_tokens=2)]
    got, rows = run_counted(tiny, requests, replace(UNCACHED, max_running=7))
    assert rows == (39 + 2 + 3 * 3) + (7 + 2 + 3 * 3) + (5 + 1)
    assert got.tokens["g2"] == one_by_one(tiny, requests[:3]).tokens["g2"]
    assert got.tokens["h2"] == one_by_one(tiny, requests[3:6]).tokens["h2"]


def test_requests_that_wait_for_a_row_share_the_prompt_with_those_that_leave(tiny: TinyModel) -> None:
    requests = choices(8, max_tokens=1)
    got, rows = run_counted(tiny, requests, replace(UNCACHED, max_running=3))
    assert rows == len(PROMPT) + 7
    assert got.tokens == one_by_one(tiny, requests).tokens


def test_requests_that_cannot_run_together_find_the_prompt_in_the_prefix_cache(tiny: TinyModel) -> None:
    requests = choices(4)
    got, rows = run_counted(tiny, requests, replace(ROOMY, max_running=1))
    assert got.cached == {"g0": 0, **dict.fromkeys(["g1", "g2", "g3"], 36)}
    assert rows == len(PROMPT) + 3 * 3 + 4 * 3
    assert got.tokens == one_by_one(tiny, requests).tokens


@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_others_go_on_when_the_one_that_computes_the_prompt_is_aborted(tiny: TinyModel, step: int) -> None:
    requests = choices(4)
    got = run(tiny.engine(UNCACHED), requests, aborts={step: "g0"})
    assert got.reasons == {"g0": FinishReason.ABORT, **dict.fromkeys(["g1", "g2", "g3"], FinishReason.LENGTH)}
    expected = one_by_one(tiny, requests).tokens
    assert [got.tokens[name] for name in ("g1", "g2", "g3")] == [expected[name] for name in ("g1", "g2", "g3")]


def test_in_a_small_cache_they_are_preempted_and_get_the_same_tokens(tiny: TinyModel) -> None:
    limits = replace(UNCACHED, kv_cache_bytes=250_000)
    requests = [*choices(6, max_tokens=12), *choices(2, prompt=PROMPT[:20], group="h", max_tokens=12)]
    engine = tiny.engine(limits)
    got = run(engine, requests)
    assert engine.scheduler.num_preemptions > 0
    assert got.tokens == one_by_one(tiny, requests).tokens


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_the_scores_of_the_prompt_are_computed_once_and_each_has_them(tiny: TinyModel, max_tokens: int) -> None:
    requests = choices(4, prompt_logprobs=2, max_tokens=max_tokens)
    got, rows = run_counted(tiny, requests, ROOMY)
    assert rows == len(PROMPT) + 3 + 4 * max(0, max_tokens - 1)
    assert got.prompt_logprobs == one_by_one(tiny, requests).prompt_logprobs
    assert len(got.prompt_logprobs) == 4
    assert None not in got.prompt_logprobs.values()


def test_an_adapter_that_cannot_be_read_ends_each_of_them_once(tiny: TinyModel) -> None:
    got = run(tiny.engine(ROOMY), choices(3, AdapterRef("0" * 64, "/nowhere")))
    assert got.reasons == dict.fromkeys(["g0", "g1", "g2"], FinishReason.ERROR)


def test_a_group_of_batch_requests_shares_its_prompt_and_gives_way(tiny: TinyModel) -> None:
    batch = [msgspec.structs.replace(one, priority=Priority.BATCH) for one in choices(3)]
    now = request("now", PROMPT[:9], max_tokens=3, ignore_stop_tokens=True)
    engine = tiny.engine(replace(UNCACHED, max_running=3))
    collected = Collected()
    for one in batch:
        engine.add(one)
    for _ in range(4):  # the prompt is computed, and all three run
        collected.add(engine.step())
    engine.add(now)
    while engine.has_work:
        collected.add(engine.step())
        engine.check()
    assert engine.scheduler.num_preemptions == 1
    assert {name: collected.tokens[name] for name in ("g0", "g1", "g2")} == one_by_one(tiny, choices(3)).tokens
