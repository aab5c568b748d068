"""Grammars enforced while sampling: masks in the right row, each token consumed once, other sequences unaffected."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest

from intaglio.engine.engine import Engine, EngineLimits
from intaglio.engine.grammar import GrammarCompiler, Matcher
from intaglio.grammar import json_object_grammar, json_schema_grammar
from intaglio.request import AdapterRef, EngineRequest, FinishReason, TokenOutput
from tests.helpers.engines import Collected, TinyModel, request, run
from tests.helpers.token_tables import text_of, tiny_grammar_compiler

ROOMY = EngineLimits(max_running=8, step_tokens=64, kv_block_size=4, kv_cache_bytes=1 << 23)
TIGHT = EngineLimits(max_running=8, step_tokens=16, kv_block_size=4, kv_cache_bytes=250_000)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "ok": {"type": "boolean"},
    },
    "required": ["name", "age", "ok"],
    "additionalProperties": False,
}
WILD: dict[str, object] = {"temperature": 1.5, "max_tokens": 120}


@pytest.fixture(scope="module")
def grammar() -> str:
    return json_schema_grammar(SCHEMA)


@pytest.fixture
def grammar_compiler(tmp_path: Path) -> GrammarCompiler:
    return tiny_grammar_compiler(tmp_path / "tokens")


def prompt(seed: int, length: int) -> list[int]:
    return [2, *np.random.default_rng(seed).integers(10, 250, length - 1).tolist()]


def asks(count: int, grammar: str, adapters: list[AdapterRef], **params: object) -> list[EngineRequest]:
    """Every second one follows the grammar; base and adapters take turns."""
    chosen = [None, *adapters]
    return [
        request(
            str(seed),
            prompt(seed, 5 + seed),
            chosen[seed // 2 % len(chosen)],
            seed=seed,
            grammar=grammar if seed % 2 else None,
            **{**WILD, "max_tokens": 120 if seed % 2 else 20, "ignore_stop_tokens": not seed % 2, **params},
        )
        for seed in range(1, count + 1)
    ]


def follows(tokens: list[int], schema: dict[str, Any] = SCHEMA) -> bool:
    return bool(jsonschema_rs.is_valid(schema, json.loads(text_of(tokens))))


def test_sampled_completions_follow_the_schema(
    tiny: TinyModel, grammar_compiler: GrammarCompiler, grammar: str
) -> None:
    requests = [request(str(seed), prompt(seed, 7), seed=seed, grammar=grammar, **WILD) for seed in range(1, 17)]
    got = run(tiny.engine(ROOMY, grammar_compiler=grammar_compiler), requests)
    for name, tokens in got.tokens.items():
        assert got.reasons[name] is FinishReason.STOP
        assert follows(tokens), text_of(tokens)
    assert len({tuple(tokens) for tokens in got.tokens.values()}) > 8, "the model still chooses"


@pytest.mark.parametrize("limits", [ROOMY, TIGHT], ids=["roomy", "tight"])
def test_sequences_with_and_without_grammar_get_in_one_batch_what_they_get_alone(
    tiny: TinyModel, grammar_compiler: GrammarCompiler, grammar: str, adapters: list[AdapterRef], limits: EngineLimits
) -> None:
    """With a tight cache they put each other out; a matcher that took a token twice would fail."""
    requests = asks(8, grammar, adapters)
    engine = tiny.engine(limits, grammar_compiler=grammar_compiler)
    together = run(engine, requests)
    assert (engine.scheduler.num_preemptions > 0) is (limits is TIGHT)
    for item in requests:
        alone = run(tiny.engine(ROOMY, grammar_compiler=grammar_compiler), [item])
        assert together.tokens[item.request_id] == alone.tokens[item.request_id]
        assert together.reasons[item.request_id] is alone.reasons[item.request_id]
        if item.params.grammar is None:
            assert run(tiny.engine(ROOMY), [item]).tokens == alone.tokens
        else:
            assert follows(together.tokens[item.request_id])


def test_a_preempted_sequence_keeps_the_state_of_its_grammar(
    tiny: TinyModel, grammar_compiler: GrammarCompiler, grammar: str
) -> None:
    """Its matcher takes no token twice and none is lost."""
    engine = tiny.engine(TIGHT, grammar_compiler=grammar_compiler)
    requests = [request(str(seed), prompt(seed, 5), seed=seed, grammar=grammar, **WILD) for seed in range(1, 7)]
    for item in requests:
        engine.add(item)
    got, preempted = Collected(), 0
    while engine.has_work:
        got.add(engine.step())
        engine.check()
        preempted += any(sequence.num_output > 0 for sequence in engine.scheduler.waiting)
    assert preempted > 0, "a sequence was preempted in the middle of its completion"
    for item in requests:
        alone = run(tiny.engine(ROOMY, grammar_compiler=grammar_compiler), [item])
        assert got.tokens[item.request_id] == alone.tokens[item.request_id]
        assert follows(got.tokens[item.request_id])


def test_a_completion_ends_with_the_last_token_that_the_grammar_allows(
    tiny: TinyModel, grammar_compiler: GrammarCompiler
) -> None:
    engine = tiny.engine(ROOMY, grammar_compiler=grammar_compiler)
    exact = 'start: "true" " " "null"'
    got = run(engine, [request("r", prompt(1, 5), grammar=exact, max_tokens=30)])
    assert text_of(got.tokens["r"]) == "true null"
    assert got.reasons["r"] is FinishReason.STOP
    assert 1 not in got.tokens["r"], "no stop token had to be chosen"
    just_enough = request("r", prompt(1, 5), grammar=exact, max_tokens=len(got.tokens["r"]))
    assert run(engine, [just_enough]).reasons["r"] is FinishReason.STOP, "complete, not cut"


def test_a_completion_cut_by_max_tokens_ends_with_length(
    tiny: TinyModel, grammar_compiler: GrammarCompiler, grammar: str
) -> None:
    got = run(
        tiny.engine(ROOMY, grammar_compiler=grammar_compiler),
        [request("r", prompt(1, 5), grammar=grammar, max_tokens=3)],
    )
    assert (len(got.tokens["r"]), got.reasons["r"]) == (3, FinishReason.LENGTH)


@pytest.mark.parametrize("ignore", [True, False])
def test_a_stop_token_may_come_exactly_where_the_grammar_may_end(
    tiny: TinyModel, grammar_compiler: GrammarCompiler, ignore: bool
) -> None:
    """The bias makes the model want its end above all; the flag for benchmarks does not outlive a grammar's end."""
    asked = {"max_tokens": 30, "logit_bias": {1: 100.0}, "ignore_stop_tokens": ignore}
    engine = tiny.engine(ROOMY, grammar_compiler=grammar_compiler)
    engine.add(request("r", prompt(1, 5), grammar="start: /[0-9]{4,}/", **asked))
    outputs: list[TokenOutput] = []
    while engine.has_work:
        outputs += engine.step()
    *digits, end = [output.token_id for output in outputs if output.token_id is not None]
    assert (end, outputs[-1].token_id, outputs[-1].finish_reason) == (1, 1, FinishReason.STOP)
    assert text_of(digits).isdigit()
    assert 4 <= len(text_of(digits)) <= 5, "the first end that was allowed was taken"


def test_control_tokens_never_come_from_a_grammar(tiny: TinyModel, grammar_compiler: GrammarCompiler) -> None:
    wanted = dict.fromkeys((0, 2, 3, 4), 100.0)
    item = request("r", prompt(1, 5), grammar="start: /(.|\\n)*/", max_tokens=40, logit_bias={**wanted, 1: -100.0})
    tokens = run(tiny.engine(ROOMY, grammar_compiler=grammar_compiler), [item]).tokens["r"]
    assert not {0, 2, 3, 4} & set(tokens)


def test_logprobs_under_a_grammar_are_of_the_models_own_distribution(
    tiny: TinyModel, grammar_compiler: GrammarCompiler, grammar: str
) -> None:
    asked = request("r", prompt(1, 5), grammar=grammar, logprobs=1, **WILD)
    got = run(tiny.engine(ROOMY, grammar_compiler=grammar_compiler), [asked])
    first = got.logprobs["r"][0]
    free = run(tiny.engine(ROOMY), [request("r", prompt(1, 5), logprobs=1, max_tokens=1, ignore_stop_tokens=True)])
    best = free.logprobs["r"][0]
    assert first is not None
    assert best is not None
    assert first.best == best.best
    assert first.chosen < best.chosen - 0.1, "the model would have begun otherwise"


# -- failures end one sequence alone


class FailsAt(GrammarCompiler):
    """Its matchers fail with the second token that they advance over."""

    def acquire(self, request: EngineRequest) -> Matcher | None:
        found = super().acquire(request)
        if found is not None:
            tokens: list[int] = []
            original = found.advance

            def advance(token: int) -> None:
                tokens.append(token)
                original(0 if len(tokens) == 2 else token)  # 0 is <pad>, which no grammar has

            found.advance = advance  # type: ignore[method-assign]
        return found


def test_a_matcher_that_fails_ends_its_sequence_alone(tiny: TinyModel, tmp_path: Path, grammar: str) -> None:
    requests = asks(4, grammar, [])
    tiny_grammar_compiler(tmp_path / "tokens")
    got = run(tiny.engine(ROOMY, grammar_compiler=FailsAt(tmp_path / "tokens", [1])), requests)
    assert [got.reasons[name] for name in "1234"] == [FinishReason.ERROR, FinishReason.LENGTH] * 2
    assert got.errors["1"] == "token 0 does not follow the grammar"
    assert len(got.tokens["1"]) == 1
    for item in requests:
        if item.params.grammar is None:
            assert got.tokens[item.request_id] == run(tiny.engine(ROOMY), [item]).tokens[item.request_id]


def test_a_grammar_that_cannot_be_compiled_ends_its_request_alone(
    tiny: TinyModel, grammar_compiler: GrammarCompiler
) -> None:
    engine = tiny.engine(ROOMY, grammar_compiler=grammar_compiler)
    got = run(engine, [request("bad", prompt(1, 5), grammar="start: nowhere"), request("good", prompt(2, 5))])
    assert got.reasons["bad"] is FinishReason.ERROR
    assert "nowhere" in (got.errors["bad"] or "")
    assert got.errors["good"] is None


def test_a_grammar_that_grows_past_the_limits_ends_its_sequence_alone(
    tiny: TinyModel, grammar_compiler: GrammarCompiler
) -> None:
    costly = f'start: /"{"a?" * 800}{"a" * 800}"/'
    engine = tiny.engine(ROOMY, grammar_compiler=grammar_compiler)
    free = request("free", prompt(2, 5), ignore_stop_tokens=True)
    got = run(engine, [request("costly", prompt(1, 5), grammar=costly, max_tokens=400), free])
    assert got.reasons == {"costly": FinishReason.ERROR, "free": FinishReason.LENGTH}
    assert "limits" in (got.errors["costly"] or "")


def test_a_grammar_needs_a_token_table(tiny: TinyModel) -> None:
    got = run(tiny.engine(ROOMY), [request("r", prompt(1, 5), grammar=json_object_grammar())])
    assert got.reasons["r"] is FinishReason.ERROR
    assert "without a token table" in (got.errors["r"] or "")


def test_a_damaged_table_fails_requests_with_a_grammar_alone(tiny: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_bytes(b"no table")
    engine = tiny.engine(ROOMY, grammar_compiler=GrammarCompiler(tmp_path / "tokens", [1]))
    bound = request("bound", prompt(1, 5), grammar=json_object_grammar())
    got = run(engine, [bound, request("free", prompt(2, 5), ignore_stop_tokens=True)])
    assert got.reasons == {"bound": FinishReason.ERROR, "free": FinishReason.LENGTH}


class Slow(GrammarCompiler):
    """Compiles when it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, [1])
        self.may_go = threading.Event()

    def _compile(self, grammar: str) -> Matcher:
        assert self.may_go.wait(60)
        return super()._compile(grammar)


def step_until(engine: Engine, got: Collected, name: str) -> None:
    for _ in range(10_000):
        if name in got.reasons:
            return
        got.add(engine.step())
        engine.check()
    raise AssertionError(f"{name} has no end")


def test_a_sequence_whose_grammar_is_still_compiling_is_skipped(tiny: TinyModel, tmp_path: Path, grammar: str) -> None:
    tiny_grammar_compiler(tmp_path / "tokens")
    slow = Slow(tmp_path / "tokens")
    engine = tiny.engine(ROOMY, grammar_compiler=slow)
    got = Collected()
    engine.add(request("bound", prompt(1, 5), grammar=grammar, **WILD))
    engine.add(request("free", prompt(2, 5), ignore_stop_tokens=True))
    step_until(engine, got, "free")
    assert "bound" not in got.tokens
    slow.may_go.set()
    step_until(engine, got, "bound")
    assert follows(got.tokens["bound"])


def test_an_abort_while_the_grammar_compiles_leaves_nothing_behind(
    tiny: TinyModel, tmp_path: Path, grammar: str
) -> None:
    tiny_grammar_compiler(tmp_path / "tokens")
    slow = Slow(tmp_path / "tokens")
    engine = tiny.engine(ROOMY, grammar_compiler=slow)
    engine.add(request("r", prompt(1, 5), grammar=grammar))
    engine.step()
    assert [output.finish_reason for output in engine.abort("r")] == [FinishReason.ABORT]
    engine.check()
    assert not engine.has_work
    slow.may_go.set()


def test_an_aborted_sequence_frees_its_row_for_the_next(
    tiny: TinyModel, grammar_compiler: GrammarCompiler, grammar: str
) -> None:
    engine = tiny.engine(ROOMY, grammar_compiler=grammar_compiler)
    requests = [request(name, prompt(3, 5), grammar=grammar, **WILD) for name in "ab"]
    got = run(engine, requests, aborts={3: "a"})
    assert got.reasons == {"a": FinishReason.ABORT, "b": FinishReason.STOP}
    assert follows(got.tokens["b"])
