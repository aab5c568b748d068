"""What the prefix cache keeps for one adapter, scale or mix is never found by another.

Mutants show what a looser key would do: each makes a request get the text of another adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from intaglio.engine import sequence as sequence_module
from intaglio.engine.engine import EngineLimits
from intaglio.request import AdapterRef, ScaledAdapter
from tests.helpers.engines import TinyModel, request, run

LIMITS = EngineLimits(max_running=8, step_tokens=64, kv_block_size=4, kv_cache_bytes=1 << 23)
PROMPT = [2, *range(20, 44)]  # six full blocks
LONG: dict[str, object] = {"max_tokens": 8, "ignore_stop_tokens": True}

Mix = Sequence[ScaledAdapter]
Identity = Callable[[Mix], str | None]


def mixes(adapters: Sequence[AdapterRef]) -> dict[str, Mix]:
    a, b, c = adapters
    return {
        "a": [ScaledAdapter(a)],
        "another file under the name of a": [ScaledAdapter(c)],
        "half of a": [ScaledAdapter(a, 0.5)],
        "a and b": [ScaledAdapter(a), ScaledAdapter(b)],
        "a and half of b": [ScaledAdapter(a), ScaledAdapter(b, 0.5)],
        "b": [ScaledAdapter(b)],
        "base": [],
    }


def one_after_another(tiny: TinyModel, asked: dict[str, Mix]) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Answers and cached prompt tokens, with one prompt and one prefix cache."""
    engine = tiny.engine(LIMITS)
    results = [run(engine, [request(name, PROMPT, mix, **LONG)]) for name, mix in asked.items()]  # type: ignore[arg-type]
    tokens = {name: given for result in results for name, given in result.tokens.items()}
    return tokens, {name: count for result in results for name, count in result.cached.items()}


def each_alone(tiny: TinyModel, asked: dict[str, Mix]) -> dict[str, list[int]]:
    return {name: one_after_another(tiny, {name: mix})[0][name] for name, mix in asked.items()}


def test_every_adapter_scale_and_mix_has_its_own_cache_entries(tiny: TinyModel, adapters: list[AdapterRef]) -> None:
    asked = mixes(adapters)
    expected = each_alone(tiny, asked)
    assert len({tuple(tokens) for tokens in expected.values()}) == len(asked), "the answers tell them apart"
    tokens, cached = one_after_another(tiny, asked)
    assert tokens == expected
    assert set(cached.values()) == {0}


def test_the_same_mix_in_any_order_finds_its_cached_prefix(tiny: TinyModel, adapters: list[AdapterRef]) -> None:
    mix = mixes(adapters)["a and half of b"]
    tokens, cached = one_after_another(tiny, {"first": mix, "turned round": mix[::-1]})
    assert tokens["first"] == tokens["turned round"]
    assert cached == {"first": 0, "turned round": 24}


def by_name(mix: Mix) -> str | None:
    return "the name that every adapter here has" if mix else None


def by_first_member(mix: Mix) -> str | None:
    return min(one.ref.digest for one in mix) if mix else None


def without_scales(mix: Mix) -> str | None:
    return " ".join(sorted(one.ref.digest for one in mix)) or None


def without_adapters(mix: Mix) -> str | None:
    return None


@pytest.mark.parametrize(
    ("identity", "before", "victim"),
    [
        (by_name, "a", "another file under the name of a"),
        (by_first_member, "a", "half of a"),
        (without_scales, "a", "half of a"),
        (without_scales, "a and b", "a and half of b"),
        (without_adapters, "base", "b"),
        (without_adapters, "b", "base"),
    ],
)
def test_with_a_looser_key_a_request_gets_the_text_of_another_adapter(
    tiny: TinyModel,
    adapters: list[AdapterRef],
    identity: Identity,
    before: str,
    victim: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {name: mixes(adapters)[name] for name in (before, victim)}
    expected = each_alone(tiny, asked)
    monkeypatch.setattr(sequence_module, "mix_identity", identity)
    tokens, cached = one_after_another(tiny, asked)
    assert tokens[before] == expected[before]
    assert cached[victim] == 24
    assert tokens[victim] != expected[victim]
