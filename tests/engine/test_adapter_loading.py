"""Loading adapters: which requests wait, which go on, and that every completion stays the same."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio.engine.adapter_loader import AdapterLoader
from intaglio.engine.engine import EngineLimits
from intaglio.engine.verification.verifier import Verifier
from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.cache import PackedAdapters
from intaglio.lora.packing import AdapterDtype, pack_tensors
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.lora.pool import LoadedAdapter
from intaglio.ops import AdapterTensors, AdapterWeights
from intaglio.request import AdapterRef, FinishReason, ScaledAdapter, Verification, VerifiedAdapter
from tests.helpers.adapters import write_converted_adapter, write_peft_adapter
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


def test_others_run_while_an_adapter_is_being_read_and_all_completions_stay_the_same(
    tiny: TinyModel, adapters: list[AdapterRef]
) -> None:
    slow = SlowAdapter(tiny, adapters[0])
    engine = tiny.engine(ROOMY, load=slow)
    for name, ref in {"slow": adapters[0], "base": None, "other": adapters[1]}.items():
        engine.add(request(name, PROMPT, ref, **LONG))
    got = Collected()
    while len(got.reasons) < 2:
        got.add(engine.step())
        engine.check()
    assert got.reasons.keys() == {"base", "other"}
    assert "slow" not in got.tokens
    slow.arrives.set()
    while engine.has_work:
        got.add(engine.step())
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


def test_a_read_that_fails_late_ends_all_requests_of_its_adapter_and_no_other(
    tiny: TinyModel, adapters: list[AdapterRef], tmp_path: Path
) -> None:
    gone = AdapterRef("0" * 64, str(tmp_path / "gone"))
    slow = SlowAdapter(tiny, gone)
    engine = tiny.engine(ROOMY, load=slow)
    for name, ref in {"bad": gone, "worse": gone, "good": adapters[0]}.items():
        engine.add(request(name, PROMPT, ref, **LONG))
    got = Collected()
    while "good" not in got.reasons:
        got.add(engine.step())
    slow.arrives.set()
    while engine.has_work:
        got.add(engine.step())
        engine.check()
    assert got.reasons == {"good": FinishReason.LENGTH, "bad": FinishReason.ERROR, "worse": FinishReason.ERROR}
    assert all("does not exist" in (got.errors[name] or "") for name in ("bad", "worse"))


# -- several adapters in one request, and one adapter in several folders


def test_a_mix_waits_for_its_last_adapter_and_other_sequences_run(tiny: TinyModel, adapters: list[AdapterRef]) -> None:
    mix = [ScaledAdapter(adapters[0], 0.5), ScaledAdapter(adapters[1], 2.0)]
    slow = SlowAdapter(tiny, adapters[0])
    engine = tiny.engine(ROOMY, load=slow)
    for name, wanted in {"mix": mix, "one": [mix[1]], "base": []}.items():
        engine.add(request(name, PROMPT, wanted, **LONG))
    got = Collected()
    while len(got.reasons) < 2:
        got.add(engine.step())
        engine.check()
    assert got.reasons.keys() == {"one", "base"}
    slow.arrives.set()
    while engine.has_work:
        got.add(engine.step())
        engine.check()
    assert got.tokens["mix"] == run(tiny.engine(ROOMY), [request("r", PROMPT, mix, **LONG)]).tokens["r"]
    assert len({tuple(tokens) for tokens in got.tokens.values()}) == 3


def test_the_same_adapter_in_two_folders_is_read_once_and_cached_once(
    tiny: TinyModel, adapters: list[AdapterRef], tmp_path: Path
) -> None:
    """The second name's prompt is found in the prefix cache: one adapter gives one set of keys and values."""
    twin_folder = write_peft_adapter(tmp_path / "twin", tiny.model.config, rank=2, seed=101)
    twin = AdapterRef(read_peft_adapter(twin_folder, tiny.model.config, AdapterLimits()).digest, str(twin_folder))
    assert twin.digest == adapters[1].digest
    asked: list[str] = []

    def counting(ref: AdapterRef) -> LoadedAdapter:
        asked.append(ref.folder)
        return load_from_peft(tiny.model)(ref)

    engine = tiny.engine(ROOMY, load=counting)
    prompt = [2, *range(20, 40)]
    first = run(engine, [request("first", prompt, adapters[1], **LONG)])
    second = run(engine, [request("second", prompt, twin, **LONG)])
    assert second.tokens["second"] == first.tokens["first"]
    assert (first.cached["first"], second.cached["second"]) == (0, 20)
    assert asked == [adapters[1].folder]


def test_a_running_request_keeps_its_adapter_when_the_name_points_to_another(
    tiny: TinyModel, adapters: list[AdapterRef], tmp_path: Path
) -> None:
    """A name's new generation is another digest: it is read beside the old one, which is still being used."""
    folder = write_peft_adapter(tmp_path / "name", tiny.model.config, rank=2, seed=50)
    old = AdapterRef(read_peft_adapter(folder, tiny.model.config, AdapterLimits()).digest, str(folder))
    expected = {"old": alone(tiny, old)}
    engine = tiny.engine(ROOMY)
    engine.add(request("old", PROMPT, old, **LONG))
    got = Collected()
    while "old" not in got.tokens:
        got.add(engine.step())
    write_peft_adapter(folder, tiny.model.config, rank=2, seed=51)
    new = AdapterRef(read_peft_adapter(folder, tiny.model.config, AdapterLimits()).digest, str(folder))
    expected["new"] = alone(tiny, new)
    engine.add(request("new", PROMPT, new, **LONG))
    while engine.has_work:
        got.add(engine.step())
        engine.check()
    assert got.tokens == expected
    assert expected["old"] != expected["new"]


# -- the loader: packed files first, and nothing that was not verified


class CountingProver:
    """The real one; it notes what it was asked to verify."""

    def __init__(self, tiny: TinyModel, dtype: AdapterDtype = "float32") -> None:
        self._verifier = Verifier(tiny.model, tiny.ops, 4, dtype)
        self.asked: list[str] = []

    def __call__(self, adapter: LoraAdapter, weights: AdapterWeights) -> Verification:
        self.asked.append(adapter.digest)
        return self._verifier.verify(adapter, weights)


@dataclass
class Cache:
    """A folder of packed adapters, and loaders over it as they would be in one engine after another."""

    folder: Path
    tiny: TinyModel
    verified: list[str] = field(default_factory=list)

    def loader(
        self,
        tiny: TinyModel | None = None,
        served_by: str = "this base",
        max_rank: int = 64,
        dtype: AdapterDtype = "float32",
    ) -> AdapterLoader:
        tiny = tiny or self.tiny
        verifier = CountingProver(tiny, dtype)
        verifier.asked = self.verified
        packed = PackedAdapters(self.folder, dtype, served_by)
        return AdapterLoader(tiny.model, tiny.ops, AdapterLimits(max_rank=max_rank), packed, verifier)

    def generate(self, ref: AdapterRef) -> list[int]:
        """Of a new engine."""
        engine = self.tiny.engine(ROOMY, load=self.loader().load)
        return run(engine, [request("r", PROMPT, ref, **LONG)]).tokens["r"]


@pytest.fixture
def cache(tiny: TinyModel, tmp_path: Path) -> Cache:
    return Cache(tmp_path / "packed", tiny)


def test_the_second_load_is_from_the_packed_file_and_gives_the_same_tokens(
    tiny: TinyModel, adapters: list[AdapterRef], cache: Cache, tmp_path: Path
) -> None:
    first = cache.generate(adapters[2])
    without_files = AdapterRef(adapters[2].digest, str(tmp_path / "nothing here"))
    assert cache.generate(without_files) == first == alone(tiny, adapters[2])
    assert cache.verified == [adapters[2].digest]


def test_a_verification_that_was_asked_for_is_the_one_that_loading_needs(
    cache: Cache, adapters: list[AdapterRef]
) -> None:
    ref = adapters[1]
    verification = cache.loader().verify(ref.folder).verification
    assert (verification.rank, verification.num_modules, verification.scalable) == (2, 49, True)
    assert verification.agreement > 0.99
    assert cache.loader().verify(ref.folder, ref.digest) == VerifiedAdapter(ref.digest, verification)
    loaded = cache.loader().load(adapters[1])
    assert (loaded.rank, loaded.scalable) == (2, True)
    assert cache.verified == [adapters[1].digest]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_an_adapter_converted_from_pissa_has_the_bits_it_needs_and_says_so(
    cache: Cache, tiny: TinyModel, tmp_path: Path, dtype: AdapterDtype
) -> None:
    folder = str(write_converted_adapter(tmp_path / "converted", tiny.model.config, moved=1e-3))
    verified = cache.loader(dtype=dtype).verify(folder)
    (note,) = verified.verification.notes
    assert note.startswith(f"49 of 49 LoRA modules are held with more bits than {dtype}")
    assert verified.verification.agreement > 0.99
    assert cache.loader(dtype=dtype).verify(folder, verified.digest) == verified  # from the packed file
    exact = cache.loader(dtype="float32").verify(folder)
    assert (exact.digest, exact.verification.notes) == (verified.digest, ())
    loaded = cache.loader(dtype=dtype).load(AdapterRef(verified.digest, folder))
    assert loaded.nbytes >= cache.loader(dtype="float32").load(AdapterRef(verified.digest, folder)).nbytes


def test_loading_an_adapter_that_is_being_verified_uses_the_same_verification(
    cache: Cache, adapters: list[AdapterRef]
) -> None:
    loader, ref = cache.loader(), adapters[0]
    with ThreadPoolExecutor(4) as pool:
        verifications = [pool.submit(loader.verify, ref.folder, ref.digest) for _ in range(2)]
        loads = [pool.submit(loader.load, ref) for _ in range(2)]
        assert verifications[0].result(DEADLINE_S) == verifications[1].result(DEADLINE_S)
        assert [load.result(DEADLINE_S).digest for load in loads] == [ref.digest] * 2
    assert cache.verified == [ref.digest]


def test_another_base_or_version_is_verified_again(cache: Cache, adapters: list[AdapterRef]) -> None:
    for served_by in ("this base", "another base", "this base"):
        cache.loader(served_by=served_by).load(adapters[0])
    assert cache.verified == [adapters[0].digest] * 2


def test_an_adapter_that_fails_verification_is_never_loaded(cache: Cache, tiny: TinyModel, tmp_path: Path) -> None:
    folder = write_peft_adapter(tmp_path / "idle", tiny.model.config, alpha=1e-30)
    ref = AdapterRef(read_peft_adapter(folder, tiny.model.config, AdapterLimits()).digest, str(folder))
    for _ in range(2):
        with pytest.raises(AdapterError, match="changes nothing"):
            cache.loader().load(ref)
    assert cache.verified == [ref.digest] * 2
    assert not list(cache.folder.glob("*"))


def test_a_small_adapter_gives_nearly_the_exact_logits(tiny: TinyModel, adapters: list[AdapterRef]) -> None:
    def logits(tensors: AdapterTensors | None) -> NDArray[np.float32]:
        return run_prompts(tiny.model, [Prompt(PROMPT, tensors)], ops=tiny.ops)[0]

    exact = read_peft_adapter(Path(adapters[2].folder), tiny.model.config, AdapterLimits()).tensors
    effect = np.abs(logits(exact) - logits(None)).max()
    # seven layers of seven deltas, each within 2^-10 of its terms
    np.testing.assert_allclose(logits(pack_tensors(exact, "float16")), logits(exact), rtol=0, atol=0.01 * effect)


def test_a_damaged_packed_file_is_made_again_and_verified_again(adapters: list[AdapterRef], cache: Cache) -> None:
    first = cache.generate(adapters[1])
    (path,) = cache.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    assert cache.generate(adapters[1]) == first
    assert cache.generate(adapters[1]) == first
    assert cache.verified == [adapters[1].digest] * 2


def test_an_adapter_packed_for_another_base_is_refused_with_the_tensor_that_does_not_fit(
    adapters: list[AdapterRef], cache: Cache, tmp_path: Path
) -> None:
    cache.loader().load(adapters[2])
    smaller = load_tiny(tmp_path / "smaller", "gemma", cache.tiny.ops)
    with pytest.raises(AdapterError, match=r"tensor .* layer 3.* 0 to 2"):
        cache.loader(smaller).load(adapters[2])


def test_a_lower_rank_limit_applies_to_packed_adapters_too(cache: Cache, adapters: list[AdapterRef]) -> None:
    cache.loader().load(adapters[2])
    with pytest.raises(AdapterError, match="limit is 2"):
        cache.loader(max_rank=2).load(adapters[2])


def test_files_that_do_not_match_the_digest_are_refused(cache: Cache, adapters: list[AdapterRef]) -> None:
    loader, folder = cache.loader(), adapters[0].folder
    for act in (lambda: loader.load(AdapterRef("0" * 64, folder)), lambda: loader.verify(folder, "0" * 64)):
        with pytest.raises(AdapterError, match="its files changed"):
            act()
    assert cache.verified == []
