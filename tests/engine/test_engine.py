from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from intaglio.engine.engine import EngineLimits
from intaglio.ops import Array, Ops, SamplingRow
from intaglio.request import AdapterRef, FinishReason, Priority
from tests.helpers.engines import Collected, TinyModel, request, run

ROOMY = EngineLimits(max_running=8, step_tokens=64, kv_block_size=4, kv_cache_bytes=1 << 23)
# Ten blocks for the sliding layers: few sequences can stay together.
TIGHT = EngineLimits(max_running=8, step_tokens=16, kv_block_size=4, kv_cache_bytes=250_000)

NO_STOP = {"ignore_stop_tokens": True}


def prompt(seed: int, length: int) -> list[int]:
    return [2, *np.random.default_rng(seed).integers(10, 250, length - 1).tolist()]


def alone(tiny: TinyModel, length: int, prompt_seed: int, adapter: AdapterRef | None, **params: object) -> list[int]:
    """The tokens of a request that runs alone, with nothing cached."""
    item = request("alone", prompt(prompt_seed, length), adapter, **(NO_STOP | params))
    return run(tiny.engine(ROOMY), [item]).tokens["alone"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mix=st.lists(st.tuples(st.sampled_from([1, 2, 3, 7, 33]), st.integers(0, 3)), min_size=2, max_size=6),
    limits=st.sampled_from([ROOMY, TIGHT]),
    sampled=st.booleans(),
)
def test_a_mixed_batch_gives_each_request_what_it_gets_alone(
    tiny: TinyModel,
    adapters: list[AdapterRef],
    mix: list[tuple[int, int]],
    limits: EngineLimits,
    sampled: bool,
) -> None:
    """Whatever the neighbours, the chunks, the preemptions and the prefix cache."""
    params: dict[str, object] = {"temperature": 0.9, "top_p": 0.9} if sampled else {"temperature": 0.0}
    chosen: list[AdapterRef | None] = [None, *adapters]
    requests = [
        request(str(index), prompt(length, length), chosen[which], **(NO_STOP | params | {"seed": index + 1}))
        for index, (length, which) in enumerate(mix)
    ]
    got = run(tiny.engine(limits), requests)
    for index, (length, which) in enumerate(mix):
        expected = alone(tiny, length, length, chosen[which], **(params | {"seed": index + 1}))
        assert got.tokens[str(index)] == expected


def test_adapters_differ_from_the_base_and_from_each_other(tiny: TinyModel, adapters: list[AdapterRef]) -> None:
    answers = [tuple(alone(tiny, 9, 5, adapter)) for adapter in (None, *adapters)]
    assert len(set(answers)) == len(answers)


def test_preemption_happens_and_changes_no_completion(tiny: TinyModel) -> None:
    requests = [request(str(seed), prompt(seed, 5), max_tokens=20, **NO_STOP) for seed in range(6)]
    engine = tiny.engine(TIGHT)
    got = run(engine, requests)
    assert engine.scheduler.num_preemptions > 0
    for seed in range(6):
        assert got.tokens[str(seed)] == alone(tiny, 5, seed, None, max_tokens=20)


def test_a_second_request_takes_its_prefix_from_the_cache_and_gets_the_same_tokens(
    tiny: TinyModel, adapters: list[AdapterRef]
) -> None:
    engine = tiny.engine(ROOMY)
    first = run(engine, [request("first", prompt(3, 33), adapters[0], **NO_STOP)])
    second = run(engine, [request("second", prompt(3, 33), adapters[0], **NO_STOP)])
    other = run(engine, [request("other", prompt(3, 33), adapters[1], **NO_STOP)])
    assert (first.cached["first"], second.cached["second"], other.cached["other"]) == (0, 32, 0)
    assert second.tokens["second"] == first.tokens["first"]


def test_a_stop_token_ends_the_completion_and_is_reported(tiny: TinyModel) -> None:
    free = alone(tiny, 7, 1, None)
    engine = tiny.engine(ROOMY, stop_ids=[free[3]])
    got = run(engine, [request("r", prompt(1, 7))])
    assert got.tokens["r"] == free[: free.index(free[3]) + 1]
    assert got.reasons["r"] is FinishReason.STOP


def test_max_tokens_ends_the_completion_with_length(tiny: TinyModel) -> None:
    got = run(tiny.engine(ROOMY), [request("r", prompt(1, 7), max_tokens=3, **NO_STOP)])
    assert len(got.tokens["r"]) == 3
    assert got.reasons["r"] is FinishReason.LENGTH


def test_an_aborted_request_ends_once_and_frees_everything(tiny: TinyModel) -> None:
    engine = tiny.engine(ROOMY)
    requests = [request(name, prompt(ord(name), 9), max_tokens=30, **NO_STOP) for name in "ab"]
    got = run(engine, requests, aborts={4: "a"})
    assert got.reasons == {"a": FinishReason.ABORT, "b": FinishReason.LENGTH}
    assert got.tokens["b"] == alone(tiny, 9, ord("b"), None, max_tokens=30)
    assert engine.abort("a") == [], "a second abort is harmless"
    assert engine.abort("never seen") == []


def test_an_adapter_whose_files_are_gone_ends_its_request_alone(
    tiny: TinyModel, adapters: list[AdapterRef], tmp_path: Path
) -> None:
    gone = AdapterRef("0" * 64, str(tmp_path / "gone"))
    engine = tiny.engine(ROOMY)
    got = run(engine, [request("bad", prompt(1, 5), gone), request("good", prompt(2, 5), adapters[0], **NO_STOP)])
    assert got.reasons == {"bad": FinishReason.ERROR, "good": FinishReason.LENGTH}
    assert "does not exist, or was removed" in (got.errors["bad"] or "")


def test_an_adapter_whose_files_changed_is_not_served(tiny: TinyModel, adapters: list[AdapterRef]) -> None:
    swapped = AdapterRef(adapters[0].digest, adapters[1].folder)
    got = run(tiny.engine(ROOMY), [request("r", prompt(1, 5), swapped)])
    assert got.reasons["r"] is FinishReason.ERROR
    assert "its files changed" in (got.errors["r"] or "")


def test_adapters_that_do_not_fit_together_are_loaded_one_after_the_other(
    tiny: TinyModel, adapters: list[AdapterRef]
) -> None:
    engine = tiny.engine(ROOMY, adapter_bytes=200_000)  # one of the larger ones at a time
    requests = [request(str(i), prompt(i, 6), adapters[i % 3], **NO_STOP) for i in range(6)]
    got = run(engine, requests)
    for index in range(6):
        assert got.tokens[str(index)] == alone(tiny, 6, index, adapters[index % 3])


class SpoiltOps:
    """Another backend, but logits of the sequence with seed 13 come out as NaN."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def sample(self, logits: Array, rows: Sequence[SamplingRow], vocab_size: int) -> list[int]:
        spoilt = logits.copy()
        spoilt[[row.seed == 13 for row in rows]] = np.nan
        return self._ops.sample(spoilt, rows, vocab_size)


class WatchfulOps:
    """Another backend; counts what is asked of it beside the forward and the choice."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops
        self.raw: list[NDArray[np.float32]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def distributions(self, logits: Array, rows: Sequence[int], vocab_size: int) -> Any:
        self.raw.extend(logits[row, :vocab_size].copy() for row in rows)
        return self._ops.distributions(logits, rows, vocab_size)

    def mask_tokens(self, logits: Array, row: int, allowed: bytes) -> None:
        raise AssertionError("no request has a grammar")


def test_logprobs_are_of_the_raw_distribution_whatever_the_sampling_settings(tiny: TinyModel) -> None:
    ops = WatchfulOps(tiny.ops)
    steered = {
        "logit_bias": {17: 30.0},
        "repetition_penalty": 1.9,
        "frequency_penalty": 2.0,
        "presence_penalty": 2.0,
        "temperature": 3.0,
        "top_k": 5,
    }
    got = run(tiny.engine(ROOMY, ops=ops), [request("r", prompt(1, 7), logprobs=3, **(NO_STOP | steered))])
    assert len(ops.raw) == len(got.tokens["r"]) == len(got.logprobs["r"]) == 8
    for raw, token, found in zip(ops.raw, got.tokens["r"], got.logprobs["r"], strict=True):
        exact = raw.astype(np.float64)
        judged = exact - exact.max() - np.log(np.exp(exact - exact.max()).sum())
        assert found is not None
        assert found.chosen == pytest.approx(judged[token], abs=4e-6)
        assert [token for token, _ in found.best] == np.argsort(-raw, kind="stable")[:3].tolist()
        assert [value for _, value in found.best] == pytest.approx(np.sort(judged)[::-1][:3], abs=4e-6)


def test_logprobs_are_computed_only_for_requests_that_ask(tiny: TinyModel) -> None:
    ops = WatchfulOps(tiny.ops)
    asked = {"a": None, "b": 0, "c": None, "d": 20}
    requests = [request(name, prompt(ord(name), 7), logprobs=count, **NO_STOP) for name, count in asked.items()]
    got = run(tiny.engine(ROOMY, ops=ops), requests)
    assert len(ops.raw) == len(got.tokens["b"]) + len(got.tokens["d"])
    for name, count in asked.items():
        assert [None if found is None else len(found.best) for found in got.logprobs[name]] == [count] * 8
        assert got.tokens[name] == alone(tiny, 7, ord(name), None)


def test_a_bias_changes_greedy_sampling_too(tiny: TinyModel) -> None:
    free = alone(tiny, 7, 1, None)
    biased = alone(tiny, 7, 1, None, logit_bias={free[0]: -100.0})
    assert biased[0] != free[0]
    assert alone(tiny, 7, 1, None, logit_bias={17: 100.0}) == [17] * 8


def test_interactive_requests_overtake_batch_ones_and_change_no_completion(
    tiny: TinyModel, adapters: list[AdapterRef]
) -> None:
    limits = replace(ROOMY, max_running=2)
    engine = tiny.engine(limits)
    got, chosen = Collected(), [None, *adapters]
    for index in range(4):
        engine.add(request(f"b{index}", prompt(index, 9), chosen[index], Priority.BATCH, max_tokens=40, **NO_STOP))
    while len(engine.scheduler.running) < 2:  # a thread loads adapters: until then the request of the base runs alone
        got.add(engine.step())
    for index in range(2):
        engine.add(request(f"i{index}", prompt(20 + index, 9), chosen[index], max_tokens=12, **NO_STOP))
    order: list[str] = []
    while engine.has_work:
        outputs = engine.step()
        got.add(outputs)
        order += [output.request_id for output in outputs if output.finish_reason is not None]
        engine.check()
    assert order[:2] == ["i0", "i1"]
    assert engine.scheduler.num_preemptions == 2
    for index in range(4):
        assert got.tokens[f"b{index}"] == alone(tiny, 9, index, chosen[index], max_tokens=40)


def test_a_sequence_without_finite_logits_fails_alone(tiny: TinyModel) -> None:
    engine = tiny.engine(ROOMY, ops=SpoiltOps(tiny.ops))
    requests = [request("bad", prompt(1, 5), seed=13), request("good", prompt(2, 5), **NO_STOP)]
    got = run(engine, requests)
    assert got.reasons == {"bad": FinishReason.ERROR, "good": FinishReason.LENGTH}
    assert "no finite logits" in (got.errors["bad"] or "")


class BrokenOps(SpoiltOps):
    """Fails whenever two sequences choose a token together."""

    def sample(self, logits: Array, rows: Sequence[SamplingRow], vocab_size: int) -> list[int]:
        if len(rows) > 1:
            raise ValueError("two at once")
        return super().sample(logits, rows, vocab_size)


def test_a_failing_step_ends_its_sequences_with_an_error_and_the_loop_goes_on(tiny: TinyModel) -> None:
    engine = tiny.engine(ROOMY, ops=BrokenOps(tiny.ops))
    got = run(engine, [request(name, prompt(ord(name), 5)) for name in "ab"])
    assert set(got.reasons.values()) == {FinishReason.ERROR}
    assert "two at once" in (got.errors["a"] or "")
    assert run(engine, [request("c", prompt(3, 5), **NO_STOP)]).reasons == {"c": FinishReason.LENGTH}


def test_the_same_seed_gives_the_same_completion_and_another_seed_another(tiny: TinyModel) -> None:
    params: dict[str, object] = {"temperature": 2.0, "max_tokens": 12}
    first = alone(tiny, 5, 1, None, seed=11, **params)
    assert alone(tiny, 5, 1, None, seed=11, **params) == first
    assert alone(tiny, 5, 1, None, seed=12, **params) != first


@pytest.mark.parametrize("penalty", [1.5, 2.0])
def test_a_repetition_penalty_makes_repeats_rarer(tiny: TinyModel, penalty: float) -> None:
    plain = alone(tiny, 5, 1, None, max_tokens=40)
    penalized = alone(tiny, 5, 1, None, max_tokens=40, repetition_penalty=penalty)
    assert len(set(penalized)) > len(set(plain))
