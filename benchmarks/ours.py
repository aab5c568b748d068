"""Our engine as a worker: `intaglio.engine.Engine` in this process, with timed steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks.models import Home, references
from benchmarks.worker import Job, Runner, Sample, serve
from benchmarks.workloads import Model, Workload
from intaglio.base_model import BaseModel
from intaglio.engine.core_process import build_engine
from intaglio.engine.engine import Engine
from intaglio.engine.protocol import EngineSpec
from intaglio.model.config import ModelConfig
from intaglio.ops.cpu import instruction_sets
from intaglio.request import AdapterRef, EngineRequest, FinishReason, SamplingParams, ScaledAdapter, TokenTable
from intaglio.settings import load_settings
from intaglio.text import Tokenizer, open_chat_format


def python(_home: Path) -> Path:
    return Path(sys.executable)


def refuses(_workload: Workload) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class _NoTokenizer:
    """The parts of a tokenizer that the engine needs for requests of token ids without stop tokens and grammars."""

    vocab_size: int
    stop_ids: frozenset[int] = frozenset()
    digest: str = "none"

    def token_table(self) -> TokenTable:
        return TokenTable(pieces=[], controls=[])


def open_engine(home: Home, model: Model, threads: int | None, **options: Any) -> tuple[Engine, ModelConfig]:
    """An engine of a measured model, without a prefix cache.

    options  fields of `Settings`
    """
    spec, config = engine_spec(home, model, threads, **options)
    return build_engine(spec).engine, config


def engine_spec(home: Home, model: Model, threads: int | None, **options: Any) -> tuple[EngineSpec, ModelConfig]:
    """The specification and config with which `open_engine` builds an engine."""
    config = home.config(model)
    settings = load_settings(**{"threads": threads, "prefix_cache": False, "log_level": "warning"} | options)
    tokenizer = cast(Tokenizer, _NoTokenizer(config.vocab_size))
    chat = open_chat_format(None, {}, tokenizer, takes_system=config.family == "gemma3")
    base = BaseModel(home.model(model), config, tokenizer, chat, is_quantized=True)
    return base.engine_spec(settings), config


def request(name: str, prompt: Sequence[int], output_tokens: int, adapter: AdapterRef | None = None) -> EngineRequest:
    """A greedy request that always generates `output_tokens` tokens."""
    params = SamplingParams(temperature=0, max_tokens=output_tokens, ignore_stop_tokens=True, seed=0)
    return EngineRequest(name, list(prompt), params, (ScaledAdapter(adapter),) if adapter else ())


class Ours:
    """Runs all streams of a workload in one engine; workloads without matrix tiles have a second engine."""

    def __init__(self, job: Job) -> None:
        self._job, self._home = job, Home(Path(job.home))
        self._engines: dict[str, Engine] = {}
        self._adapters: dict[tuple[int, tuple[str, ...]], list[AdapterRef]] = {}

    def run(self, workload: Workload, repeat: int) -> Sample:
        engine = self._engine(_kernels(workload))
        for stream, prompt in enumerate(workload.prompts(repeat)):
            index = workload.adapter_of(stream)
            adapter = None if index is None else self._references(workload)[index]
            engine.add(request(f"{repeat}/{stream}", prompt, workload.output_tokens, adapter))
        return timed(engine, workload)

    def close(self) -> None:
        pass

    def _references(self, workload: Workload) -> list[AdapterRef]:
        kind = (workload.rank, workload.projections)
        if kind not in self._adapters:
            folders = self._home.adapters(self._job.model, *kind)
            self._adapters[kind] = references(folders, self._home.config(self._job.model))
        return self._adapters[kind]

    def _engine(self, kernels: str) -> Engine:
        if kernels not in self._engines:
            self._engines[kernels], _ = open_engine(self._home, self._job.model, self._job.threads, kernels=kernels)
        return self._engines[kernels]


def _kernels(workload: Workload) -> str:
    best = instruction_sets()
    return best[1] if best[0] == "amx" and not workload.tiles else best[0]


def timed(engine: Engine, workload: Workload) -> Sample:
    """Step until all streams have ended. Decode begins once every stream has its first token."""
    started: set[str] = set()
    first = last = begin = time.perf_counter()
    decoded = total = 0
    while engine.has_work:
        outputs = engine.step()
        last = time.perf_counter()
        failed = [output.error for output in outputs if output.finish_reason is FinishReason.ERROR]
        if failed:
            raise RuntimeError(failed[0])
        total += len(outputs)
        if len(started) == workload.streams:
            decoded += len(outputs)
        else:
            started.update(output.request_id for output in outputs)
            first = last
    return Sample(
        decode=decoded / (last - first) if decoded else None,
        prefill=workload.streams * workload.prompt_tokens / (first - begin),
        output=total / (last - begin),
    )


def open_runner(job: Job) -> Runner:
    return Ours(job)


if __name__ == "__main__":
    serve(open_runner)
