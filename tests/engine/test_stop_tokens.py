"""Where a completion ends: the model's stop tokens, the caller's, min_tokens, and what a grammar says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.engine.grammar import GrammarCompiler
from intaglio.engine.sampler import without_tokens
from intaglio.errors import BadInputError
from intaglio.request import MAX_STOP_TOKENS, AdapterRef, FinishReason, SamplingParams
from tests.engine.test_engine import ROOMY, TIGHT, alone, prompt
from tests.helpers.engines import STOP_ID, TinyModel, request, run
from tests.helpers.token_tables import text_of, tiny_grammar_compiler

EITHER = 'start: "a" | "ab"'


@pytest.fixture
def grammar_compiler(tmp_path: Path) -> GrammarCompiler:
    return tiny_grammar_compiler(tmp_path / "tokens")


def test_a_stop_token_of_the_caller_ends_the_completion_even_if_the_models_are_ignored(tiny: TinyModel) -> None:
    free = alone(tiny, 7, 1, None)
    got = run(tiny.engine(ROOMY), [request("r", prompt(1, 7), stop_token_ids=(free[3],), ignore_stop_tokens=True)])
    assert got.tokens["r"] == free[: free.index(free[3]) + 1]
    assert got.reasons["r"] is FinishReason.STOP


def test_an_ignored_stop_token_is_a_token_like_any_other(tiny: TinyModel) -> None:
    free = alone(tiny, 7, 1, None)
    got = run(tiny.engine(ROOMY, stop_ids=[free[3]]), [request("r", prompt(1, 7), ignore_stop_tokens=True)])
    assert (got.tokens["r"], got.reasons["r"]) == (free, FinishReason.LENGTH)


@pytest.mark.parametrize("own", [True, False])
def test_no_stop_token_comes_before_min_tokens(tiny: TinyModel, own: bool) -> None:
    free = alone(tiny, 7, 1, None)
    ends = free[2]
    engine = tiny.engine(ROOMY, stop_ids=[ends] if own else [1])
    asked = () if own else (ends,)
    first = free.index(ends)
    got = run(
        engine,
        [
            request("exact", prompt(1, 7), stop_token_ids=asked, min_tokens=first),
            request("more", prompt(1, 7), stop_token_ids=asked, min_tokens=first + 1, max_tokens=40),
            request("all", prompt(1, 7), stop_token_ids=asked, min_tokens=8),
        ],
    )
    assert got.tokens["exact"] == free[: first + 1]
    assert got.tokens["more"][:first] == free[:first]
    assert got.tokens["more"][first] != ends
    assert ends not in got.tokens["more"][: first + 1]
    assert len(got.tokens["all"]) == 8
    assert ends not in got.tokens["all"]


def test_ends_and_min_p_are_the_same_in_any_batch_and_after_preemption(
    tiny: TinyModel, adapters: list[AdapterRef]
) -> None:
    chosen = [None, *adapters]
    params = {"temperature": 1.2, "min_tokens": 15, "max_tokens": 30, "stop_token_ids": tuple(range(5, 120, 3))}
    requests = [
        request(str(seed), prompt(seed, 5), chosen[seed % len(chosen)], seed=seed, min_p=0.02 * seed, **params)
        for seed in range(6)
    ]
    engine = tiny.engine(TIGHT)
    got = run(engine, requests)
    assert engine.scheduler.num_preemptions > 0
    for item in requests:
        lonely = run(tiny.engine(ROOMY), [item])
        name = item.request_id
        assert (got.tokens[name], got.reasons[name]) == (lonely.tokens[name], lonely.reasons[name])
        assert not set(got.tokens[name][:15]) & set(params["stop_token_ids"])  # type: ignore[call-overload]


def test_min_p_of_one_is_greedy(tiny: TinyModel) -> None:
    got = run(tiny.engine(ROOMY), [request("r", prompt(1, 7), temperature=2.0, min_p=1.0, ignore_stop_tokens=True)])
    assert got.tokens["r"] == alone(tiny, 7, 1, None)


def test_a_grammar_that_may_go_on_does_so_until_min_tokens(tiny: TinyModel, grammar_compiler: GrammarCompiler) -> None:
    """It would end after "a" with some seed; "ab" is complete, so it ends whatever min_tokens says."""
    engine = tiny.engine(ROOMY, grammar_compiler=grammar_compiler)
    shared = {"grammar": EITHER, "temperature": 5.0, "max_tokens": 30}
    free = run(engine, [request(f"f{seed}", prompt(seed, 5), seed=seed, **shared) for seed in range(40)])
    assert {text_of(tokens) for tokens in free.tokens.values()} == {"a", "ab"}
    held = run(engine, [request(f"h{s}", prompt(s, 5), seed=s, min_tokens=9, **shared) for s in range(40)])
    assert {text_of(tokens) for tokens in held.tokens.values()} == {"ab"}
    assert set(held.reasons.values()) == {FinishReason.STOP}


def test_a_grammar_wins_where_it_allows_nothing_but_a_stop_token_of_the_caller(
    tiny: TinyModel, grammar_compiler: GrammarCompiler
) -> None:
    engine = tiny.engine(ROOMY, grammar_compiler=grammar_compiler)
    free = run(engine, [request("free", prompt(1, 5), grammar='start: "ab"')]).tokens["free"]
    ends = (free[-1],)
    got = run(engine, [request("r", prompt(1, 5), grammar='start: "ab"', stop_token_ids=ends, min_tokens=7)])
    assert (got.tokens["r"], got.reasons["r"], got.errors.get("r")) == (free, FinishReason.STOP, None)


def test_a_grammar_ends_by_the_models_stop_token_even_if_these_are_ignored(
    tiny: TinyModel, grammar_compiler: GrammarCompiler
) -> None:
    """And min_tokens holds them back there too."""
    engine = tiny.engine(ROOMY, grammar_compiler=grammar_compiler)
    shared = {"grammar": "start: /a+/", "temperature": 3.0, "max_tokens": 30, "ignore_stop_tokens": True}
    got = run(engine, [request(str(seed), prompt(seed, 5), seed=seed, **shared) for seed in range(20)])
    assert FinishReason.STOP in got.reasons.values()
    assert all(
        (tokens[-1] == STOP_ID) == (got.reasons[name] is FinishReason.STOP) for name, tokens in got.tokens.items()
    )
    held = run(engine, [request(f"h{s}", prompt(s, 5), seed=s, min_tokens=6, **shared) for s in range(20)])
    assert all(STOP_ID not in tokens[:6] for tokens in held.tokens.values())


def test_a_salt_keeps_a_prefix_from_requests_without_it(tiny: TinyModel) -> None:
    engine = tiny.engine(ROOMY)
    cached = []
    for name, salt in (("a", None), ("b", "one"), ("c", "two"), ("d", "one"), ("e", None)):
        got = run(engine, [request(name, prompt(3, 33), cache_salt=salt, ignore_stop_tokens=True)])
        cached.append(got.cached[name])
    assert cached == [0, 0, 0, 32, 32]


def test_tokens_are_taken_from_a_mask_and_ids_past_its_end_are_not_looked_for() -> None:
    assert without_tokens(b"\xff\xff", [0, 9, 16, 10_000]) == b"\xfe\xfd"
    assert without_tokens(b"\x00\x02", [9]) == b"\x00\x00"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_p": 1.1}, "min_p is 1.1, outside 0.0 to 1.0"),
        ({"min_p": -0.1}, "min_p is -0.1, outside 0.0 to 1.0"),
        ({"min_tokens": -1}, "min_tokens is -1"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9, more than max_tokens, which is 8"),
        ({"stop_token_ids": tuple(range(MAX_STOP_TOKENS + 1))}, "stop_token_ids has 129 ids, more than 128"),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(fields: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        SamplingParams(**fields)  # type: ignore[arg-type]
