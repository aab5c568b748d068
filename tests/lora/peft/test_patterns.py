"""Module expressions mean what Python's `re` says, and end soon whatever they are."""

from __future__ import annotations

import re
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intaglio.errors import AdapterError
from intaglio.lora.peft.patterns import MAX_PATTERN_CHARS, MatchBudget, ModulePattern, PatternKey

PATHS = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.10.self_attn.o_proj",
    "model.layers.7.mlp.down_proj",
    "model.language_model.layers.3.mlp.gate_proj",
    "layers.1.self_attn.k_proj",
]

# As trainers write them: PEFT's docs, a list of layers, Unsloth, LLaMA-Factory, ms-swift.
REAL = [
    r".*\.(q_proj|v_proj)$",
    r"model\.layers\.(0|7|1[0-9])\.(self_attn|mlp)\..*_proj",
    r"(?:.*?(?:vision|language|text).*?(?:self_attn|attention|mlp|ffn|dense).*?(?:q_proj|k_proj|gate_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp)\.(?:(?:q_proj|k_proj|down_proj)))",
    r"^(?!.*(?:visual|layers\.7)).*(?:q_proj|down_proj|o_proj).*",
    r"^(model\.language_model(?=\.).*\.(gate_proj|q_proj))$",
    r"model.layers.\d+.(?<!x)[^m].*[kq]_proj\b",
    r"(?:\w+\.){3}\D+|layers\.1\..{5,}",
    r".*layers\.[0-4].*",
    r"(?i).*\.(Q_PROJ|v_proj)$",
    r".*\.(?i:Self_Attn)\.[A-Z]_proj|(?s:.*)\.mlp\.(?i:[^A-F]ATE|DOWN)_proj",
]


def says_re(pattern: str, text: str) -> tuple[bool, bool]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = re.compile(pattern)
    return compiled.match(text) is not None, compiled.fullmatch(text) is not None


def says_ours(pattern: str, text: str) -> tuple[bool, bool]:
    ours, budget = ModulePattern(pattern, "target_modules"), MatchBudget()
    return ours.matches_start(text, budget), ours.matches_all(text, budget)


@pytest.mark.parametrize("pattern", REAL)
def test_real_expressions_match_as_re_does(pattern: str) -> None:
    answers = [says_ours(pattern, path) for path in PATHS]
    assert answers == [says_re(pattern, path) for path in PATHS]
    assert any(whole for _, whole in answers)  # the table is about expressions that match something


atoms = st.sampled_from(
    [
        "a",
        "b",
        "K",
        "[A-K]",
        "[^aS]",
        ".",
        r"\.",
        "[ab]",
        "[^a]",
        "[a-c.]",
        r"\d",
        r"\w",
        r"\W",
        r"\b",
        r"\B",
        "^",
        "$",
        "0",
        r"\s",
        r"\A",
        r"\Z",
    ]
)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    quantifiers = st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,3}", "{,2}?", "{2,}"])
    return (
        st.lists(inner, min_size=1, max_size=4).map("".join)
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})")
        | st.tuples(inner, quantifiers).map(lambda pair: f"(?:{pair[0]}){pair[1]}")
        | inner.map(lambda backend: f"(?={backend})")
        | inner.map(lambda backend: f"(?!{backend})")
        | st.tuples(st.sampled_from(["i", "-i", "s-i", "im", "x"]), inner).map(lambda pair: f"(?{pair[0]}:{pair[1]})")
    )


@settings(deadline=None)
@given(
    st.sampled_from(["", "", "(?i)", "(?ims)"]),
    st.recursive(atoms, grown, max_leaves=6),
    st.text("abAkS.0", min_size=1, max_size=7),
)
def test_any_expression_matches_as_re_does(flags: str, pattern: str, text: str) -> None:
    assert says_ours(flags + pattern, text) == says_re(flags + pattern, text)


@settings(deadline=None)
@given(st.text(r"ab.0()[]{}*+?|\^$-:=!<>P,dwbZi1", max_size=12), st.text("ab.0", min_size=1, max_size=7))
def test_any_text_is_an_expression_or_refused(pattern: str, text: str) -> None:
    try:
        answer = says_ours(pattern, text)
    except AdapterError:
        return
    assert answer == says_re(pattern, text)


@settings(deadline=None)
@given(st.text("abq_.|(*)+", max_size=8), st.text("ab.q_", min_size=1, max_size=9))
def test_pattern_keys_match_as_peft_matches_them(key: str, path: str) -> None:
    try:
        answer = PatternKey(key, "rank_pattern").matches(path, MatchBudget())
    except AdapterError:
        return
    assert answer == (re.match(rf"(.*\.)?({key})$", path) is not None)


BOMBS = [
    r"(a|a)*b",
    r"(.*)*x",
    r"((.+)+)+x",
    r"(?:.|.)" * 500 + "x",
    ".*" * 1500 + "x",
    r"(?:(?:.{0,4000}){0,4000}){0,4000}x",
    r"(?:){4000000000}",
    r"(?:(?:){4000000}){4000000}",
    "(?:" + "|" * 2000 + ")*" + "(?:" + "|" * 2000 + ")*",
    "(?=" * 40 + ".*" + ")" * 40,
    r"(?:(?=.*.*.*x)|.)*" * 60,
    "[" + "xyz" * 1000 + "]*",
    "(" * 1500 + "a" + ")" * 1500,
    "(?:" * 350 + "a" + ")*" * 350,
    "((((((((.*)*)*)*)*)*)*)*)*x",
    "(?<=...)" * 500,
    r"(?:[\w-]+[.])*" * 200,
]


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_an_expression_with_exponential_backtracking_is_matched_or_refused_in_time(bomb: str) -> None:
    budget, started = MatchBudget(steps=1_000_000), time.thread_time()
    try:
        pattern = ModulePattern(bomb, "target_modules")
        for path in PATHS * 20:
            assert pattern.matches_all(path, budget) in (True, False)
    except AdapterError as error:
        assert "adapter_config.json" in str(error)
    assert time.thread_time() - started < 4  # backtracking would need longer than the universe is old


def test_the_budget_is_shared_by_all_expressions() -> None:
    budget = MatchBudget(steps=1000)
    with pytest.raises(AdapterError, match="too long to match"):
        for _ in range(1000):
            ModulePattern(r".*q_proj", "target_modules").matches_all(PATHS[0], budget)


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        (r"(a)\1", "groupref"),
        (r"(?>a+)b", "atomic group"),
        (r"a++b", "possessive repeat"),
        (r"(a", "not a regular expression"),
        (r"*", "not a regular expression"),
        ("a" * (MAX_PATTERN_CHARS + 1), f"limit is {MAX_PATTERN_CHARS}"),
    ],
)
def test_what_cannot_be_matched_is_refused_by_name(pattern: str, complaint: str) -> None:
    with pytest.raises(AdapterError, match=complaint) as refusal:
        ModulePattern(pattern, "exclude_modules").matches_all("aab", MatchBudget())
    assert "exclude_modules" in str(refusal.value)
