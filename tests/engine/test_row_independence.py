"""Row independence through the whole engine: a request gets the same logits, bit for bit, and so the same tokens,
whatever else is there, however its prompt is cut, from whichever cache, preempted or not, on any number of threads.

Judged by the request alone: one thread, whole prompt, empty cache. Mutants of `tests/ops/row_independence.py` verify
that a backend without the property does not pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intaglio.engine.engine import Engine, EngineLimits
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.packing import AdapterDtype
from intaglio.model.config import ModelConfig
from intaglio.model.gemma import Gemma
from intaglio.model.loader import load_gemma
from intaglio.model.quantize import WeightFormat as Format
from intaglio.ops import KVFormat, Ops
from intaglio.ops.cached_values import token_bytes
from intaglio.ops.cpu import CpuOps, instruction_sets
from intaglio.ops.reference import ReferenceOps
from intaglio.request import AdapterRef, EngineRequest, Priority, ScaledAdapter, TokenLogprobs
from tests.engine.row_recorder import RecordingOps, SampledToken
from tests.helpers.adapter_kinds import adapters_of_every_kind
from tests.helpers.checkpoints import FAMILIES, Family, tiny_config
from tests.helpers.engines import (
    Collected,
    LoadAdapter,
    load_from_peft,
    loaded_adapter,
    make_engine,
    request,
    write_adapters,
    write_tiny_model,
)
from tests.helpers.kernels import ENGINE_BACKENDS, KERNELS, VARIANT
from tests.helpers.token_tables import tiny_grammar_compiler
from tests.ops.row_dependent_backends import SplitsTheSum, StartsAtTheChunk

# Ten blocks for the sliding layers of Gemma 3: few sequences can stay together, so they preempt each other.
ROOMY, TIGHT = 1 << 23, 250_000
PLAIN = EngineLimits(max_running=1, step_tokens=64, kv_block_size=16, kv_cache_bytes=ROOMY, prefix_cache=False)


# Six tokens of three bytes at most do not reach its end.
GRAMMAR = "start: /[a-z]{20,}/"

# Plain LoRA of ranks 1 to 3, then one of each kind: see `adapters_of_every_kind`.
NUM_PLAIN, NUM_SUMS, NUM_ADAPTERS = 3, 4, 7

DTYPES: Mapping[Format, AdapterDtype] = {
    "w8": "float16", "w5": "float16", "w4": "int8", "bf16": "float32", "f32": "float32"
}  # fmt: skip
FORMATS = tuple(DTYPES)
# Keys and values in every format too.
KV_FORMATS: Mapping[Format, KVFormat] = {"w8": "bf16", "w5": "int8", "w4": "int8", "bf16": "bf16", "f32": "f32"}
# The layers of a family do not depend on the format, nor the products of a format on the family. `asks` draws any.
QUICK = {("gemma3_text", "w8"), ("gemma3_text", "w4"), ("gemma3_text", "f32"), ("gemma2", "w8")}
FAMILIES_AND_FORMATS = [
    pytest.param(family, fmt, marks=() if (family, fmt) in QUICK else VARIANT) for family in FAMILIES for fmt in FORMATS
]


@dataclass(frozen=True)
class Ask:
    """A request of a mix. Prompts of one topic begin alike, so that the prefix cache has something to find."""

    topic: int
    length: int
    adapter: int  # 0 is the base model
    temperature: float
    penalty: float
    delay: int  # steps before it arrives
    priority: Priority = Priority.INTERACTIVE
    bound: bool = False  # to a grammar
    logprobs: int | None = None
    scale: float = 1.0  # of the adapter; of one that is no sum 1, whatever is said here
    second: int = 0  # one of the sums that is added to it; 0, or the same one, or where the first is no sum, is none
    group: str | None = None  # of asks that differ in their seeds alone

    def to_request(self, seed: int, adapters: list[AdapterRef]) -> EngineRequest:
        ids = [2, *np.random.default_rng(self.topic).integers(10, 250, self.length - 1).tolist()]
        made = request(
            f"r{seed}",
            ids,
            self._mix(adapters),
            self.priority,
            grammar=GRAMMAR if self.bound else None,
            logprobs=self.logprobs,
            seed=seed,
            temperature=self.temperature,
            frequency_penalty=self.penalty,
            max_tokens=6,
            ignore_stop_tokens=True,
        )
        return msgspec.structs.replace(made, group=self.group)

    def _mix(self, adapters: list[AdapterRef]) -> list[ScaledAdapter]:
        first, second = self.adapter, 0 if self.second == self.adapter else self.second
        if first > NUM_SUMS:
            return [ScaledAdapter(adapters[first - 1])]
        one = [ScaledAdapter(adapters[first - 1], self.scale)] if first else []
        return [*one, ScaledAdapter(adapters[second - 1], -0.6)] if second else one


@dataclass(frozen=True)
class Result:
    logits: dict[SampledToken, str]
    tokens: dict[str, list[int]]
    logprobs: dict[str, list[TokenLogprobs | None]]
    engine: Engine
    cached: dict[str, int]


class Workshop:
    """The tiny models on disk, and engines made of them."""

    def __init__(self, folder: Path) -> None:
        self.folders = {family: write_tiny_model(folder / family, family) for family in FAMILIES}
        models = {family: load_gemma(path, ReferenceOps()) for family, path in self.folders.items()}
        made = {family: adapters_of_every_kind(model.config) for family, model in models.items()}
        self.made = {
            family: [LoraAdapter.of(tensors) for tensors in of_family.values()] for family, of_family in made.items()
        }
        self.adapters = {
            family: [
                *write_adapters(folder / f"{family}-adapters", model, NUM_PLAIN),
                *(AdapterRef(adapter.digest, "made here") for adapter in self.made[family]),
            ]
            for family, model in models.items()
        }
        self.grammar_compilers = {
            family: tiny_grammar_compiler(folder / f"{family}-tokens", vocab_size=tiny_config(family)["vocab_size"])
            for family in FAMILIES
        }
        self.model = cache(self._model)
        self.alone = cache(self._alone)

    def _model(
        self, family: Family, fmt: Format, backend: type[CpuOps], threads: int, name: str
    ) -> tuple[Gemma, Ops, LoadAdapter]:
        """Its adapters are read once: which sequences run together should not hang on how long that takes."""
        ops = ReferenceOps() if name == "reference" else backend(threads, name)
        model = load_gemma(self.folders[family], ops, fmt)
        from_peft = load_from_peft(model)
        loaded = {ref.digest: from_peft(ref) for ref in self.adapters[family][:NUM_PLAIN]}
        for adapter in self.made[family]:
            loaded[adapter.digest] = loaded_adapter(model, adapter, DTYPES[fmt])
        return model, ops, lambda ref: loaded[ref.digest]

    def run(
        self,
        asks: list[tuple[int, Ask]],
        family: Family,
        fmt: Format,
        limits: EngineLimits,
        threads: int,
        backend: type[CpuOps] = CpuOps,
        name: str | None = None,
        adapter_bytes: int = 400_000,
    ) -> Result:
        """asks: (seed, ask), in order of arrival among those of one delay."""
        model, ops, load = self.model(family, fmt, backend, threads, name or ENGINE_BACKENDS[0])
        limits = _in_kv_format(limits, KV_FORMATS[fmt] if backend is CpuOps else "f32", model.config)
        recorder = RecordingOps(ops)
        # A few of the adapters at a time: they are evicted and loaded again.
        grammar_compiler = self.grammar_compilers[family]
        engine = make_engine(
            model, limits, ops=recorder, adapter_bytes=adapter_bytes, grammar_compiler=grammar_compiler, load=load
        )
        collected, step = Collected(), 0
        waiting = [(ask.delay, ask.to_request(seed, self.adapters[family])) for seed, ask in asks]
        while engine.has_work or waiting:
            for item in [item for delay, item in waiting if delay <= step]:
                engine.add(item)
            waiting = [(delay, item) for delay, item in waiting if delay > step]
            collected.add(engine.step())
            engine.check()
            step += 1
            assert step < 5000, "the engine makes no progress"
        assert not any(collected.errors.values()), collected.errors
        return Result(recorder.logits, collected.tokens, collected.logprobs, engine, collected.cached)

    def _alone(
        self, seed: int, ask: Ask, family: Family, fmt: Format, backend: type[CpuOps] = CpuOps, name: str | None = None
    ) -> Result:
        return self.run([(seed, replace(ask, delay=0, group=None))], family, fmt, PLAIN, 1, backend, name)

    def check(self, result: Result, asks: list[tuple[int, Ask]], family: Family, fmt: Format, **how: object) -> None:
        for seed, ask in asks:
            alone = self.alone(seed, ask, family, fmt, **how)  # type: ignore[arg-type]
            ours = {choice: digest for choice, digest in result.logits.items() if choice[0] == seed}
            differing = sorted(choice for choice in alone.logits if ours.get(choice) != alone.logits[choice])
            assert not differing, f"request {seed}, {ask}: logits differ from token {differing[0][1]} on"
            assert result.tokens[f"r{seed}"] == alone.tokens[f"r{seed}"]
            assert result.logprobs[f"r{seed}"] == alone.logprobs[f"r{seed}"]


def _in_kv_format(limits: EngineLimits, fmt: KVFormat, config: ModelConfig) -> EngineLimits:
    """The same number of tokens in the cache, held in the format."""
    ours, plain = (token_bytes(kind, config.num_kv_heads, config.head_dim) for kind in (fmt, "f32"))
    return replace(limits, kv_format=fmt, kv_cache_bytes=-(-limits.kv_cache_bytes * ours // plain))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


asks = st.builds(
    Ask,
    topic=st.integers(0, 2),
    length=st.sampled_from([1, 2, 3, 7, 17, 33, 50]),
    adapter=st.integers(0, NUM_ADAPTERS),
    temperature=st.sampled_from([0.0, 0.9]),
    penalty=st.sampled_from([0.0, 0.0, 1.0]),
    delay=st.sampled_from([0, 0, 1, 4]),
    priority=st.sampled_from(Priority),
    bound=st.sampled_from([False, False, True]),
    logprobs=st.sampled_from([None, None, 0, 3]),
    scale=st.sampled_from([1.0, 1.0, 0.5, -1.5]),
    second=st.sampled_from([0, 0, 1, 2, NUM_SUMS]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mix=st.lists(st.tuples(asks, st.sampled_from([1, 1, 3])), min_size=1, max_size=7),
    family=st.sampled_from(FAMILIES),
    fmt=st.sampled_from(FORMATS),
    threads=st.integers(1, 4),
    step_tokens=st.sampled_from([3, 16, 64]),
    block_size=st.sampled_from([3, 4, 16]),
    cache_bytes=st.sampled_from([ROOMY, TIGHT]),
    max_running=st.sampled_from([2, 8]),
)
def test_a_request_gets_the_same_bits_in_any_batch(
    workshop: Workshop,
    mix: list[tuple[Ask, int]],
    family: Family,
    fmt: Format,
    threads: int,
    step_tokens: int,
    block_size: int,
    cache_bytes: int,
    max_running: int,
) -> None:
    if block_size == 16 or step_tokens == 64 or family == "gemma2":
        cache_bytes = ROOMY  # a tight cache would not hold one sequence
    limits = EngineLimits(max_running, step_tokens, block_size, cache_bytes)
    choices = [replace(ask, group=f"g{i}" if n > 1 else None) for i, (ask, n) in enumerate(mix) for _ in range(n)]
    seeded = list(enumerate(choices, start=1))
    workshop.check(workshop.run(seeded, family, fmt, limits, threads), seeded, family, fmt)


@pytest.mark.parametrize("name", ENGINE_BACKENDS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_preempted_sequences_resume_with_the_same_bits(workshop: Workshop, name: str, fmt: Format) -> None:
    mix = [(seed, Ask(seed, 9, seed % 8, 0.9, 0.0, 0)) for seed in range(1, 9)]
    result = workshop.run(mix, "gemma3_text", fmt, EngineLimits(8, 16, 4, TIGHT), 2, name=name)
    assert result.engine.scheduler.num_preemptions > 0
    workshop.check(result, mix, "gemma3_text", fmt, name=name)


@pytest.mark.parametrize(("family", "fmt"), FAMILIES_AND_FORMATS)
def test_a_prefix_from_the_cache_gives_the_same_bits(workshop: Workshop, family: Family, fmt: Format) -> None:
    """The first was cut into other chunks than the others, which find 32 to 44 of their tokens in the cache."""
    for adapter in (1, NUM_SUMS + FORMATS.index(fmt) % (NUM_ADAPTERS - NUM_PLAIN)):  # each kind with some format
        later = [(seed, Ask(0, 20 + 7 * seed, adapter, 0.0, 0.0, 30)) for seed in (2, 3, 4)]
        mix = [(1, Ask(0, 50, adapter, 0.0, 0.0, 0)), *later]
        result = workshop.run(mix, family, fmt, EngineLimits(8, 7, 4, ROOMY), 3)
        assert [result.cached[f"r{seed}"] for seed, _ in mix] == [0, 32, 40, 44]
        workshop.check(result, mix, family, fmt)


@pytest.mark.parametrize(("family", "fmt"), FAMILIES_AND_FORMATS)
def test_a_prompt_that_is_shared_by_a_group_gives_the_same_bits(
    workshop: Workshop, family: Family, fmt: Format
) -> None:
    """Without prefix cache: what the others of the group have of the prompt is the first one's."""
    for length, adapter in ((50, 1), (33, NUM_SUMS + FORMATS.index(fmt) % (NUM_ADAPTERS - NUM_PLAIN)), (48, 0)):
        mix = [(seed, Ask(0, length, adapter, 0.9, 0.0, 0, group="g")) for seed in (1, 2, 3)]
        result = workshop.run(mix, family, fmt, EngineLimits(8, 7, 4, ROOMY, prefix_cache=False), 3)
        assert [result.cached[f"r{seed}"] for seed, _ in mix] == [0, length - 1, length - 1]
        workshop.check(result, mix, family, fmt)


@pytest.mark.parametrize(("family", "fmt"), FAMILIES_AND_FORMATS)
def test_adapters_of_every_kind_get_the_same_bits_beside_each_other(
    workshop: Workshop, family: Family, fmt: Format
) -> None:
    """Each twice, with other prompts; the sums scaled and mixed too; rows of the base between them."""
    kinds = [*range(NUM_ADAPTERS + 1), 0, *range(NUM_SUMS, NUM_ADAPTERS + 1)]
    mix = [
        (seed, Ask(seed, 3 + 5 * seed % 23, adapter, 0.0, 0.0, seed % 3, scale=0.5, second=seed % 3))
        for seed, adapter in enumerate(kinds, start=1)
    ]
    result = workshop.run(mix, family, fmt, EngineLimits(13, 32, 4, ROOMY), 2, adapter_bytes=1 << 22)
    workshop.check(result, mix, family, fmt)
    answers = {tuple(result.tokens[f"r{seed}"]) for seed, _ in mix}
    assert len(answers) > len(kinds) // 2, "they do change what is said"


@pytest.mark.parametrize(("family", "fmt"), FAMILIES_AND_FORMATS)
def test_mixes_that_share_an_adapter_get_the_same_bits_beside_each_other(
    workshop: Workshop, family: Family, fmt: Format
) -> None:
    kinds = [(1, 1.0, 0), (1, 0.5, 0), (1, 1.0, 2), (1, 0.5, 2), (2, 1.0, 1), (0, 1.0, 3), (0, 1.0, 0)]
    mix = [
        (seed, Ask(seed % 2, 17, adapter, 0.0, 0.0, 0, scale=scale, second=second))
        for seed, (adapter, scale, second) in enumerate(kinds, start=1)
    ]
    result = workshop.run(mix, family, fmt, EngineLimits(8, 16, 4, ROOMY), 2)
    workshop.check(result, mix, family, fmt)


# -------------------------------------------------------------------------------------------------------------- mutants

MIX = [(seed, Ask(seed, 17, seed % 4, 0.0, 0.0, 0)) for seed in range(1, 5)]


def test_a_sum_that_is_split_when_there_are_several_rows_is_noticed(workshop: Workshop) -> None:
    for fmt in FORMATS:
        limits = EngineLimits(8, 16, 4, ROOMY)
        workshop.check(workshop.run(MIX, "gemma3_text", fmt, limits, 2), MIX, "gemma3_text", fmt)
        # Not on matrix tiles: two groups of inputs, all this model has, give the same sum when they are added apart.
        name = next(name for name in (*KERNELS, *instruction_sets()) if name != "amx")
        broken = workshop.run(MIX, "gemma3_text", fmt, limits, 2, SplitsTheSum, name)
        with pytest.raises(AssertionError, match="logits differ from token"):
            workshop.check(broken, MIX, "gemma3_text", fmt, backend=SplitsTheSum, name=name)


def test_attention_whose_sum_starts_at_the_chunk_is_noticed(workshop: Workshop) -> None:
    name = (*KERNELS, *instruction_sets())[0]
    broken = workshop.run(MIX, "gemma3_text", "w8", EngineLimits(8, 5, 4, ROOMY), 2, StartsAtTheChunk, name)
    with pytest.raises(AssertionError, match="logits differ from token"):
        workshop.check(broken, MIX, "gemma3_text", "w8", backend=StartsAtTheChunk, name=name)
