"""Adapters on their way into memory: who waits for them, who does not, and what they give is always the same."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio.engine.adapter_loader import AdapterLoader
from intaglio.engine.engine import EngineLimits
from intaglio.errors import AdapterError
from intaglio.lora.packed import PackedAdapters
from intaglio.lora.peft import AdapterLimits, read_peft_adapter
from intaglio.lora.pool import LoadedAdapter
from intaglio.model.gemma import AdapterPairs
from intaglio.request import AdapterRef, FinishReason
from tests.helpers.engines import Collected, TinyModel, load_from_peft, load_tiny, request, run
from tests.helpers.forward import Prompt, run_prompts

ROOMY = EngineLimits(max_running=8, step_tokens=64, kv_block_size=4, kv_cache_bytes=1 << 23)
DEADLINE_S = 30
PROMPT = [2, 20, 30, 40, 50]
LONG: dict[str, object] = {"max_tokens": 12, "ignore_stop_tokens": True}


class SlowAdapter:
    """Loads every adapter at once but one, which waits for the test."""

    def __init__(self, tiny: TinyModel, slow: AdapterRef) -> None:
        self._load = load_from_peft(tiny.model)
        self._slow = slow
        self.arrives = threading.Event()

    def __call__(self, ref: AdapterRef) -> LoadedAdapter:
        if ref == self._slow:
            assert self.arrives.wait(DEADLINE_S)
        return self._load(ref)


def alone(tiny: TinyModel, ref: AdapterRef | None) -> list[int]:
    return run(tiny.engine(ROOMY), [request("r", PROMPT, ref, **LONG)]).tokens["r"]


def test_others_run_while_an_adapter_is_being_read_and_all_answers_stay_the_same(
    tiny: TinyModel, adapters: list[AdapterRef]
) -> None:
    slow = SlowAdapter(tiny, adapters[0])
    engine = tiny.engine(ROOMY, load=slow)
    for name, ref in {"slow": adapters[0], "base": None, "other": adapters[1]}.items():
        engine.add(request(name, PROMPT, ref, **LONG))
    got = Collected()
    while len(got.reasons) < 2:
        got.take(engine.step())
        engine.check()
    assert got.reasons.keys() == {"base", "other"}
    assert "slow" not in got.tokens
    slow.arrives.set()
    while engine.has_work:
        got.take(engine.step())
        engine.check()
    assert got.tokens == {
        "slow": alone(tiny, adapters[0]),
        "base": alone(tiny, None),
        "other": alone(tiny, adapters[1]),
    }


def test_a_request_can_be_aborted_while_its_adapter_is_being_read(tiny: TinyModel, adapters: list[AdapterRef]) -> None:
    slow = SlowAdapter(tiny, adapters[0])
    engine = tiny.engine(ROOMY, load=slow)
    engine.add(request("gone", PROMPT, adapters[0], **LONG))
    assert engine.step() == []
    (output,) = engine.abort("gone")
    assert output.finish_reason is FinishReason.ABORT
    assert not engine.has_work
    slow.arrives.set()
    assert run(engine, [request("next", PROMPT, adapters[0], **LONG)]).tokens["next"] == alone(tiny, adapters[0])


def test_an_adapter_that_fails_late_ends_all_its_requests_and_no_other(
    tiny: TinyModel, adapters: list[AdapterRef], tmp_path: Path
) -> None:
    gone = AdapterRef("0" * 64, str(tmp_path / "gone"))
    slow = SlowAdapter(tiny, gone)
    engine = tiny.engine(ROOMY, load=slow)
    for name, ref in {"bad": gone, "worse": gone, "good": adapters[0]}.items():
        engine.add(request(name, PROMPT, ref, **LONG))
    got = Collected()
    while "good" not in got.reasons:
        got.take(engine.step())
    slow.arrives.set()
    while engine.has_work:
        got.take(engine.step())
        engine.check()
    assert got.reasons == {"good": FinishReason.LENGTH, "bad": FinishReason.ERROR, "worse": FinishReason.ERROR}
    assert all("is not there" in (got.errors[name] or "") for name in ("bad", "worse"))


# -- the loader: packed files first


@pytest.fixture
def packed(tmp_path: Path) -> PackedAdapters:
    return PackedAdapters(tmp_path / "packed", "float32")


def with_loader(tiny: TinyModel, packed: PackedAdapters, ref: AdapterRef) -> list[int]:
    """The answer of a new engine that keeps packed adapters."""
    engine = tiny.engine(ROOMY, load=AdapterLoader(tiny.model, AdapterLimits(), packed).load)
    return run(engine, [request("r", PROMPT, ref, **LONG)]).tokens["r"]


def test_the_second_load_is_from_the_packed_file_and_gives_the_same_answer(
    tiny: TinyModel, adapters: list[AdapterRef], packed: PackedAdapters, tmp_path: Path
) -> None:
    first = with_loader(tiny, packed, adapters[2])
    without_files = AdapterRef(adapters[2].digest, str(tmp_path / "nothing here"))
    assert with_loader(tiny, packed, without_files) == first == alone(tiny, adapters[2])


def test_a_float16_adapter_gives_nearly_the_exact_logits_and_the_same_ones_from_its_file(
    tiny: TinyModel, adapters: list[AdapterRef], tmp_path: Path
) -> None:
    def logits(pairs: AdapterPairs | None) -> NDArray[np.float32]:
        return run_prompts(tiny.model, [Prompt(PROMPT, pairs)], ops=tiny.ops)[0]

    exact = read_peft_adapter(Path(adapters[2].folder), tiny.model.config, AdapterLimits())
    halves = PackedAdapters(tmp_path, "float16")
    kept, read = halves.keep(exact), halves.read(exact.digest)
    assert read is not None
    np.testing.assert_array_equal(logits(kept.pairs), logits(read.pairs))
    effect = np.abs(logits(exact.pairs) - logits(None)).max()
    # seven layers of seven deltas, each within 2^-10 of its terms
    np.testing.assert_allclose(logits(kept.pairs), logits(exact.pairs), rtol=0, atol=0.01 * effect)


def test_a_damaged_packed_file_is_made_again(
    tiny: TinyModel, adapters: list[AdapterRef], packed: PackedAdapters, tmp_path: Path
) -> None:
    first = with_loader(tiny, packed, adapters[1])
    (path,) = (tmp_path / "packed").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert with_loader(tiny, packed, adapters[1]) == first
    assert path.read_bytes() == whole


def test_an_adapter_packed_for_another_base_is_refused_with_the_tensor_that_does_not_fit(
    tiny: TinyModel, adapters: list[AdapterRef], packed: PackedAdapters, tmp_path: Path
) -> None:
    AdapterLoader(tiny.model, AdapterLimits(), packed).load(adapters[2])
    smaller = load_tiny(tmp_path, "gemma").model
    with pytest.raises(AdapterError, match=r"tensor .* is for layer 3; the base model has layers 0 to 2"):
        AdapterLoader(smaller, AdapterLimits(), packed).load(adapters[2])


def test_a_smaller_limit_holds_for_packed_adapters_too(
    tiny: TinyModel, adapters: list[AdapterRef], packed: PackedAdapters
) -> None:
    AdapterLoader(tiny.model, AdapterLimits(), packed).load(adapters[2])
    with pytest.raises(AdapterError, match="takes ranks up to 2"):
        AdapterLoader(tiny.model, AdapterLimits(max_rank=2), packed).load(adapters[2])
