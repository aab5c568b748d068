"""Tiny engines for tests: a random model of a family, a few adapters, and requests that run until they finish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.engine.engine import Engine, EngineLimits
from intaglio.engine.grammar import GrammarCompiler
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.packing import AdapterDtype, pack_tensors
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.lora.pool import AdapterPool, LoadedAdapter
from intaglio.model.gemma import Gemma
from intaglio.model.loader import load_gemma
from intaglio.ops import Ops
from intaglio.ops.reference import ReferenceOps
from intaglio.request import (
    AdapterRef,
    EngineRequest,
    FinishReason,
    Priority,
    PromptLogprobs,
    SamplingParams,
    ScaledAdapter,
    TokenLogprobs,
    TokenOutput,
    canonical_mix,
)
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import Family, random_weights, tiny_config, write_hf_folder

STOP_ID = 1

LoadAdapter = Callable[[AdapterRef], LoadedAdapter]


def write_tiny_model(folder: Path, family: Family = "gemma3_text", seed: int = 0) -> Path:
    config = tiny_config(family)
    write_hf_folder(folder, config, random_weights(config, seed))
    return folder


def write_adapters(folder: Path, model: Gemma, count: int) -> list[AdapterRef]:
    """Adapters of ranks 1, 2, 3, ... with distinct random weights."""
    refs = []
    for index in range(count):
        path = write_peft_adapter(folder / f"adapter-{index}", model.config, rank=1 + index, seed=100 + index)
        digest = read_peft_adapter(path, model.config, AdapterLimits()).digest
        refs.append(AdapterRef(digest, str(path)))
    return refs


def load_from_peft(model: Gemma) -> LoadAdapter:
    """A loader that reads the PEFT files of an adapter and writes no packed file."""

    def load(ref: AdapterRef) -> LoadedAdapter:
        return loaded_adapter(model, read_peft_adapter(Path(ref.folder), model.config, AdapterLimits()))

    return load


def loaded_adapter(model: Gemma, adapter: LoraAdapter, dtype: AdapterDtype = "float32") -> LoadedAdapter:
    prepared = model.prepare_adapter(pack_tensors(adapter.tensors, dtype))
    return LoadedAdapter(adapter.digest, adapter.rank, adapter.nbytes, prepared, adapter.tensors.is_sum)


def make_engine(
    model: Gemma,
    limits: EngineLimits,
    *,
    adapter_bytes: int = 1 << 24,
    stop_ids: Sequence[int] = (STOP_ID,),
    ops: Ops | None = None,
    load: LoadAdapter | None = None,
    grammar_compiler: GrammarCompiler | None = None,
) -> Engine:
    return Engine(
        model,
        AdapterPool(adapter_bytes, load or load_from_peft(model)),
        ops or ReferenceOps(),
        limits,
        stop_ids=frozenset(stop_ids),
        vocab_size=model.config.vocab_size,
        grammar_compiler=grammar_compiler,
    )


@dataclass(frozen=True, slots=True)
class TinyModel:
    """A model and the backend that it was loaded with, which its engine must use too."""

    model: Gemma
    ops: Ops

    def engine(self, limits: EngineLimits, *, ops: Ops | None = None, **options: Any) -> Engine:
        """A new engine. ops: a backend for the engine only, which wraps the model's."""
        return make_engine(self.model, limits, ops=ops or self.ops, **options)


def load_tiny(folder: Path, family: Family = "gemma3_text", ops: Ops | None = None) -> TinyModel:
    ops = ops or ReferenceOps()
    return TinyModel(load_gemma(write_tiny_model(folder, family), ops, "f32"), ops)


def request(
    request_id: str,
    prompt_ids: Sequence[int],
    adapter: AdapterRef | Sequence[ScaledAdapter] | None = None,
    priority: Priority = Priority.INTERACTIVE,
    cache_salt: str | None = None,
    **params: object,
) -> EngineRequest:
    """A request. adapter: one at scale 1, or a mix."""
    mix = [ScaledAdapter(adapter)] if isinstance(adapter, AdapterRef) else adapter or []
    defaults: dict[str, object] = {"temperature": 0.0, "max_tokens": 8, "seed": 7}
    chosen = SamplingParams(**(defaults | params))  # type: ignore[arg-type]
    return EngineRequest(request_id, list(prompt_ids), chosen, canonical_mix(mix), priority, cache_salt)


class Collected:
    """The outputs of a run by request id: tokens, logprobs, finish reason, error."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[int]] = {}
        self.reasons: dict[str, FinishReason] = {}
        self.errors: dict[str, str | None] = {}
        self.cached: dict[str, int] = {}
        self.logprobs: dict[str, list[TokenLogprobs | None]] = {}
        self.prompt_logprobs: dict[str, PromptLogprobs | None] = {}

    def add(self, outputs: Sequence[TokenOutput]) -> None:
        for output in outputs:
            assert output.request_id not in self.reasons, "a request ends exactly once"
            self.cached[output.request_id] = output.cached_tokens
            assert output.prompt_logprobs is None or output.request_id not in self.prompt_logprobs, (
                "with the first only"
            )
            self.prompt_logprobs.setdefault(output.request_id, output.prompt_logprobs)
            if output.token_id is not None:
                self.tokens.setdefault(output.request_id, []).append(output.token_id)
                self.logprobs.setdefault(output.request_id, []).append(output.logprobs)
            if output.finish_reason is not None:
                self.reasons[output.request_id] = output.finish_reason
                self.errors[output.request_id] = output.error


def run(engine: Engine, requests: Sequence[EngineRequest], aborts: Mapping[int, str] | None = None) -> Collected:
    """Add all requests, step until all have ended, checking the invariants after every step.

    aborts  step number -> request id to abort before that step
    """
    collected = Collected()
    for item in requests:
        engine.add(item)
    step = 0
    while engine.has_work:
        if aborts and step in aborts:
            collected.add(engine.abort(aborts[step]))
        collected.add(engine.step())
        engine.check()
        step += 1
        assert step < 10_000, "the engine makes no progress"
    return collected
