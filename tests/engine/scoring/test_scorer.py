"""Scores of prompts: those of one forward of the whole prompt, whatever the chunks, the neighbours and the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio.engine.engine import EngineLimits
from intaglio.engine.scoring.scorer import CHUNK_ROWS, scored_row_cost
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import config_from_hf
from intaglio.ops import Array
from intaglio.request import AdapterRef, FinishReason, PromptLogprobs, ScaledAdapter
from tests.engine.test_engine import NO_STOP, ROOMY, TIGHT, prompt
from tests.helpers.adapter_kinds import adapters_of_every_kind
from tests.helpers.checkpoints import tiny_config
from tests.helpers.engines import TinyModel, loaded_adapter, request, run
from tests.helpers.forward import Prompt, run_prompts

LENGTH = 75  # more than two chunks
Adapter = AdapterRef | Sequence[ScaledAdapter] | None


def expected_scores(tiny: TinyModel, ids: list[int], adapter: Adapter) -> NDArray[np.float64]:
    """[tokens - 1, vocab]: log softmax of one forward of the whole prompt."""
    refs = [ScaledAdapter(adapter)] if isinstance(adapter, AdapterRef) else adapter or []
    mix = [
        (read_peft_adapter(Path(one.ref.folder), tiny.model.config, AdapterLimits()).tensors, one.scale) for one in refs
    ]
    (logits,) = run_prompts(tiny.model, [Prompt(ids, mix or None)], ops=tiny.ops)
    return log_softmax(logits[:-1])


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    return exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))


def scores(
    tiny: TinyModel, ids: list[int], adapter: Adapter = None, limits: EngineLimits = ROOMY, **params: object
) -> PromptLogprobs:
    """Of a request that runs alone, with nothing cached."""
    given = NO_STOP | {"max_tokens": 0, "prompt_logprobs": 3} | params
    found = run(tiny.engine(limits), [request("alone", ids, adapter, **given)]).prompt_logprobs["alone"]
    assert found is not None
    return found


@pytest.mark.parametrize("which", ["base", "adapter", "mix"])
@pytest.mark.parametrize("max_tokens", [0, 3])
def test_each_token_has_the_log_probability_that_one_forward_of_the_prompt_gives_it(
    tiny: TinyModel, adapters: list[AdapterRef], which: str, max_tokens: int
) -> None:
    mix = [ScaledAdapter(adapters[0], 0.7), ScaledAdapter(adapters[2], -0.4)]
    adapter: Adapter = {"base": None, "adapter": adapters[1], "mix": mix}[which]
    ids = prompt(5, LENGTH)
    expected = expected_scores(tiny, ids, adapter)
    rows = list(scores(tiny, ids, adapter, max_tokens=max_tokens).rows())
    assert len(rows) == LENGTH - 1
    for row, exact, token in zip(rows, expected, ids[1:], strict=True):
        assert row.chosen == pytest.approx(exact[token], abs=2e-5)
        assert row.rank == 1 + int((exact > exact[token]).sum())
        assert [token for token, _ in row.best] == np.argsort(-exact, kind="stable")[:3].tolist()
        assert [logprob for _, logprob in row.best] == pytest.approx(np.sort(exact)[::-1][:3], abs=2e-5)


def test_adapters_that_change_the_head_or_the_last_norm_are_in_the_scores(tiny: TinyModel) -> None:
    """Of every kind, two of them and the base in one chunk of rows."""
    made = [LoraAdapter.of(tensors) for tensors in adapters_of_every_kind(tiny.model.config).values()]
    loaded = {adapter.digest: loaded_adapter(tiny.model, adapter) for adapter in made}
    ids = prompt(8, 11)
    for first, second in pairwise([*made, made[0]]):
        engine = tiny.engine(ROOMY, load=lambda ref: loaded[ref.digest])
        asks = {"base": None, "first": first, "second": second}
        got = run(
            engine,
            [
                request(name, ids, adapter and AdapterRef(adapter.digest, "made here"), max_tokens=0, prompt_logprobs=0)
                for name, adapter in asks.items()
            ],
        )
        for name, adapter in asks.items():
            (logits,) = run_prompts(tiny.model, [Prompt(ids, adapter and adapter.tensors)], ops=tiny.ops)
            found = got.prompt_logprobs[name]
            assert found is not None
            exact = log_softmax(logits[:-1])
            expected = [exact[place, token] for place, token in enumerate(ids[1:])]
            assert [row.chosen for row in found.rows()] == pytest.approx(expected, abs=2e-5)


def test_an_adapter_changes_the_scores(tiny: TinyModel, adapters: list[AdapterRef]) -> None:
    base, first, second = (scores(tiny, prompt(5, 20), one) for one in (None, *adapters[:2]))
    assert len({base.chosen, first.chosen, second.chosen}) == 3


@pytest.mark.parametrize("limits", [ROOMY, replace(ROOMY, step_tokens=7), TIGHT])
def test_scores_are_the_same_bits_in_any_batch(
    tiny: TinyModel, adapters: list[AdapterRef], limits: EngineLimits
) -> None:
    """Chunks of steps and of rows that cross sequences, preemption, other adapters and decoding neighbours."""
    asks = [
        (33, None, 0, 2),
        (7, adapters[0], 5, 0),
        (40, adapters[1], 0, 20),
        (LENGTH, None, 4, None),
        (1, None, 2, 1),
    ]
    requests = [
        request(str(index), prompt(index, length), adapter, max_tokens=tokens, prompt_logprobs=count, **NO_STOP)
        for index, (length, adapter, tokens, count) in enumerate(asks)
    ]
    got = run(tiny.engine(limits), requests)
    for index, (length, adapter, tokens, count) in enumerate(asks):
        found = got.prompt_logprobs[str(index)]
        assert got.reasons[str(index)] is FinishReason.LENGTH
        assert len(got.tokens.get(str(index), [])) == tokens
        if count is None:
            assert found is None
            continue
        assert found == scores(tiny, prompt(index, length), adapter, max_tokens=tokens, prompt_logprobs=count)


def test_a_preempted_sequence_has_each_score_once(tiny: TinyModel) -> None:
    engine = tiny.engine(TIGHT)
    requests = [
        request(str(seed), prompt(seed, 30), max_tokens=20, prompt_logprobs=1, **NO_STOP) for seed in range(1, 7)
    ]
    got = run(engine, requests)
    assert engine.scheduler.num_preemptions > 0
    for seed in range(1, 7):
        assert got.prompt_logprobs[str(seed)] == scores(tiny, prompt(seed, 30), max_tokens=20, prompt_logprobs=1)


def test_a_prompt_that_is_cached_is_scored_all_the_same(tiny: TinyModel) -> None:
    engine, ids = tiny.engine(ROOMY), prompt(3, 33)
    first = run(engine, [request("first", ids, max_tokens=2, **NO_STOP)])
    scored = run(engine, [request("scored", ids, max_tokens=0, prompt_logprobs=2)])
    after = run(engine, [request("after", ids, max_tokens=2, **NO_STOP)])
    assert scored.prompt_logprobs["scored"] == scores(tiny, ids, prompt_logprobs=2)
    assert scored.cached["scored"] == 0
    assert after.cached["after"] == 32, "a scored prompt is found by others"
    assert after.tokens["after"] == first.tokens["first"]


class CountingOps:
    """Another backend; `sizes` are the numbers of rows that had logits at once."""

    def __init__(self, tiny: TinyModel) -> None:
        self._ops = tiny.ops
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def logits(self, x: Array, *rest: Any) -> Any:
        self.sizes.append(len(x))
        return self._ops.logits(x, *rest)


def test_no_more_rows_than_a_chunk_have_logits_at_once(tiny: TinyModel) -> None:
    ops = CountingOps(tiny)
    engine = replace(tiny, model=tiny.model.with_ops(ops)).engine(replace(ROOMY, step_tokens=512))  # type: ignore[arg-type]
    asks = [request(str(length), prompt(1, length), max_tokens=0, prompt_logprobs=0) for length in (21, 61, 51)]
    run(engine, asks)
    assert ops.sizes == [CHUNK_ROWS] * 4 + [20 + 60 + 50 - 4 * CHUNK_ROWS]


class NotFiniteOps(CountingOps):
    def logits(self, x: Array, *rest: Any) -> Any:
        return self._ops.logits(x, *rest) * np.float32(np.nan)


@pytest.mark.parametrize("max_tokens", [0, 2])
def test_a_prompt_without_finite_logits_ends_in_an_error(tiny: TinyModel, max_tokens: int) -> None:
    ops = NotFiniteOps(tiny)
    engine = replace(tiny, model=tiny.model.with_ops(ops)).engine(ROOMY)  # type: ignore[arg-type]
    got = run(engine, [request("bad", prompt(1, 9), max_tokens=max_tokens, prompt_logprobs=0)])
    assert got.reasons["bad"] is FinishReason.ERROR
    assert "no finite logits" in (got.errors["bad"] or "")
    assert got.prompt_logprobs["bad"] is None


def test_a_scored_row_costs_what_its_multiplications_say() -> None:
    """Gemma 3 270M: 262,144 x 640 in the head, 18 layers of 5,570,560."""
    dims = {"hidden_size": 640, "intermediate_size": 2048, "num_layers": 18, "num_heads": 4, "num_kv_heads": 1}
    config = replace(config_from_hf(tiny_config("gemma3_text")), **dims, head_dim=256, vocab_size=262_144)
    assert scored_row_cost(config) == pytest.approx(1 + 167_772_160 / (18 * 5_570_560))
