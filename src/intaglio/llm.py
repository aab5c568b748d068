"""Text in, text out, with an adapter if wanted: `LLM` for scripts, `AsyncLLM` for the server.

`LLM` runs the engine in this process; `AsyncLLM` in a process of its own, so that a slow forward never delays an HTTP
response.

Stop strings end a request here: `CompletionBuilder.push` (completion.py) finds them, then the engine is told to abort
the sequence, because it knows token ids only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from intaglio.base_model import BaseModel, make_request
from intaglio.completion import Completion, CompletionBuilder, TextDelta, TokenLogprob, Usage, join_deltas
from intaglio.engine.client import EngineClient, OnLoading
from intaglio.engine.core_process import adapter_limits, build_engine
from intaglio.engine.memory.machine import plan_for_machine
from intaglio.engine.token_stream import TokenStream
from intaglio.grammar import check_grammar
from intaglio.model.config import ModelConfig
from intaglio.model_source import local_model_path
from intaglio.request import (
    AdapterRef,
    EngineRequest,
    FinishReason,
    Priority,
    SamplingParams,
    ScaledAdapter,
    Verification,
    VerifiedAdapter,
)
from intaglio.settings import DEFAULT_MODEL_ID, Settings, load_settings
from intaglio.text import PLAIN_TEXT, IncrementalDetokenizer, TextForm, Tokenizer

logger = logging.getLogger(__name__)

__all__ = ["LLM", "AsyncLLM", "Completion", "RequestHandle", "TextDelta", "TokenLogprob", "Usage"]

OneAdapter: TypeAlias = AdapterRef | ScaledAdapter | None
OnModelLoading: TypeAlias = Callable[[str, int, int], None]
AdapterSelection: TypeAlias = OneAdapter | Sequence[AdapterRef | ScaledAdapter]


class RequestHandle:
    """One running request: an async iterator of `TextDelta`."""

    def __init__(self, tokens: TokenStream | None, builder: CompletionBuilder, num_prompt_tokens: int) -> None:
        self._tokens = tokens
        self._builder = builder
        self._num_prompt_tokens = num_prompt_tokens

    async def __aiter__(self) -> AsyncIterator[TextDelta]:
        if self._tokens is None:  # nothing is computed
            yield TextDelta("", FinishReason.LENGTH, Usage(self._num_prompt_tokens, 0))
            return
        async for output in self._tokens:
            delta = self._builder.push(output)
            if delta.finish_reason is not None and output.finish_reason is None:
                await self.abort()  # ended by a stop string, which the engine knows nothing of
            yield delta
            if delta.finish_reason is not None:
                return

    async def abort(self) -> None:
        """Free the sequence. Call it when the caller stops reading; harmless if the request has ended."""
        if self._tokens is not None:
            await self._tokens.abort()


class AsyncLLM:
    """One served base model: tokenizer and templates in this process, the engine in its own.

    window  tokens of prompt and completion together, at most
    """

    def __init__(self, model_id: str, base: BaseModel, engine: EngineClient) -> None:
        self.model_id = model_id
        self._base = base
        self._engine = engine
        self.window = engine.max_sequence_tokens

    @classmethod
    async def start_all(
        cls, paths: Mapping[str, Path], settings: Settings, on_loading: OnModelLoading | None = None
    ) -> dict[str, AsyncLLM]:
        """An engine for each model id, with caches that fit into memory together.

        on_loading  called with the model id while weights are quantized; see `EngineClient.start`
        Raises SettingsError for what this machine cannot run or hold, before any model is loaded, and as `start` does.
        """
        plan = await asyncio.to_thread(plan_for_machine, list(paths.values()), settings)
        logger.info("%s", plan.table(list(paths)))
        models: dict[str, AsyncLLM] = {}
        try:
            for index, (model_id, path) in enumerate(paths.items()):
                shown = None if on_loading is None else partial(on_loading, model_id)
                models[model_id] = await cls.start(model_id, path, plan.of_model(index), shown)
        except BaseException:
            await asyncio.gather(*(llm.close() for llm in models.values()))
            raise
        return models

    @classmethod
    async def start(
        cls, model_id: str, path: Path, settings: Settings, on_loading: OnLoading | None = None
    ) -> AsyncLLM:
        """Open the model and start its engine; returns when it is ready. Raises ModelFormatError or EngineError."""
        base = BaseModel.open(path, settings)
        spec = base.engine_spec(settings)
        max_in_flight = settings.max_running + settings.max_waiting
        engine = await EngineClient.start(spec, max_in_flight=max_in_flight, on_loading=on_loading)
        return cls(model_id, base, engine)

    @property
    def config(self) -> ModelConfig:
        return self._base.config

    @property
    def tokenizer(self) -> Tokenizer:
        return self._base.tokenizer

    @property
    def chat_template(self) -> str:
        """A template that writes what `render_messages` does, for clients that send a chat as text."""
        return self._base.chat_template

    @property
    def engine(self) -> EngineClient:
        return self._engine

    @property
    def ready(self) -> bool:
        """Whether the engine process is up and its model loaded."""
        return self._engine.ready

    def render_prompt(self, prompt: str, *, raw: bool) -> list[int]:
        return self._base.render_prompt(prompt, raw=raw)

    def render_messages(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
    ) -> list[int]:
        return self._base.render_messages(
            messages, add_generation_prompt=add_generation_prompt, continue_final=continue_final
        )

    async def submit(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        *,
        adapters: Sequence[ScaledAdapter] = (),
        stop: Sequence[str] = (),
        priority: Priority = Priority.INTERACTIVE,
        reject_if_busy: bool = False,
        cache_salt: str | None = None,
        form: TextForm = PLAIN_TEXT,
    ) -> RequestHandle:
        """Start a request; see `submit_all`."""
        (handle,) = await self.submit_all(
            prompt_ids,
            [params],
            adapters=adapters,
            stop=stop,
            priority=priority,
            reject_if_busy=reject_if_busy,
            cache_salt=cache_salt,
            form=form,
        )
        return handle

    async def submit_all(
        self,
        prompt_ids: list[int],
        params: Sequence[SamplingParams],
        *,
        adapters: Sequence[ScaledAdapter] = (),
        stop: Sequence[str] = (),
        priority: Priority = Priority.INTERACTIVE,
        reject_if_busy: bool = False,
        cache_salt: str | None = None,
        form: TextForm = PLAIN_TEXT,
    ) -> list[RequestHandle]:
        """Start a request for each of `params`, which differ in their seeds alone: all of them or none. Their prompt is
        computed once, as far as they can run together.

        reject_if_busy  refuse (CapacityError) if one would have to wait for others

        Raises ContextLengthError, BadInputError, CapacityError or EngineDeadError before any text exists. A grammar
        should have passed `grammar.check_grammar`; with a bad one the request ends in an error.

        cache_salt  see `EngineRequest`
        form        what of the tokens becomes text
        """
        requests = [
            make_request(prompt_ids, one, adapters, self.window, self.tokenizer.vocab_size, priority, cache_salt)
            for one in params
        ]
        if len(requests) > 1:
            group = requests[0].request_id
            requests = [msgspec.structs.replace(request, group=group) for request in requests]
        streams: Sequence[TokenStream | None] = [None] * len(requests)
        if params[0].max_tokens != 0 or params[0].prompt_logprobs is not None:
            streams = await self._engine.submit_all(requests, reject_if_busy=reject_if_busy)
        return [
            RequestHandle(stream, _completion_builder(request, self.tokenizer, stop, form), len(prompt_ids))
            for request, stream in zip(requests, streams, strict=True)
        ]

    async def verify(self, folder: str, digest: str | None = None) -> VerifiedAdapter:
        """Read, check, verify and pack the adapter in a folder.

        digest  what the adapter must have, if that is known: then one that was verified here before is not read again
        Raises AdapterError with the reason if it cannot be served, EngineError if verification could not be done.
        """
        return await self._engine.verify(folder, digest)

    async def close(self) -> None:
        await self._engine.close()


class LLM:
    """A model and its engine in this process, for scripts and notebooks.

        llm = LLM()                                   # the bundled Gemma 3 270M
        adapter = llm.load_adapter("path/to/peft/folder")
        llm.generate(["The capital of France is"], SamplingParams(temperature=0), raw=True)

    model     a Hugging Face folder, a .gguf file or hf:OWNER/REPO; None is the bundled 270M
    options   fields of `Settings`
    """

    def __init__(self, model: str | Path | None = None, **options: Any) -> None:
        settings = load_settings(**options)
        path = local_model_path(model or DEFAULT_MODEL_ID, settings)
        plan = plan_for_machine([path], settings)
        logger.info("%s", plan.table([path.name]))
        self._settings = plan.of_model(0)
        self._base = BaseModel.open(path, self._settings)
        spec = self._base.engine_spec(self._settings)
        self._limits = adapter_limits(spec)
        self._engine, self._adapters = build_engine(spec)
        self.window = self._engine.max_sequence_tokens

    @property
    def config(self) -> ModelConfig:
        return self._base.config

    @property
    def tokenizer(self) -> Tokenizer:
        return self._base.tokenizer

    def load_adapter(self, folder: str | Path) -> AdapterRef:
        """Check and verify a folder of PEFT or MLX-LM, or a GGUF adapter. Raises AdapterError with the reason."""
        return AdapterRef(self._adapters.verify(str(folder)).digest, str(folder))

    def verify(self, ref: AdapterRef) -> Verification:
        """The adapter's verification, made now or in an earlier process. Raises AdapterError."""
        return self._adapters.verify(ref.folder, ref.digest).verification

    def generate(
        self,
        prompts: Sequence[str] | Sequence[Sequence[Mapping[str, Any]]],
        params: SamplingParams | None = None,
        *,
        adapters: OneAdapter | Sequence[AdapterSelection] = None,
        raw: bool = False,
        stop: Sequence[str] = (),
    ) -> list[Completion]:
        """Complete all prompts (strings, or lists of chat messages) in one batch.

        adapters  one for all prompts, or one selection per prompt: an adapter, None for the base, or a sequence of
                  adapters that are added up. `ScaledAdapter(ref, 0.7)` is an adapter scaled by 0.7

        Raises ContextLengthError, ChatError, BadInputError or GrammarError before anything runs, EngineError if a
        request fails.
        """
        params = params or SamplingParams()
        if params.grammar is not None:
            check_grammar(params.grammar)
        selections = _selections(adapters, len(prompts))
        if len(selections) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(selections)} adapter selections")
        ids = [self._prompt_ids(prompt, raw) for prompt in prompts]
        requests = [
            make_request(prompt_ids, params, _scaled(selection), self.window, self.tokenizer.vocab_size)
            for prompt_ids, selection in zip(ids, selections, strict=True)
        ]
        if params.max_tokens == 0 and params.prompt_logprobs is None:
            return [Completion("", FinishReason.LENGTH, Usage(len(prompt_ids), 0)) for prompt_ids in ids]
        deltas: dict[str, list[TextDelta]] = {}
        builders: dict[str, CompletionBuilder] = {}
        for request in requests:
            deltas[request.request_id] = []
            builders[request.request_id] = _completion_builder(request, self.tokenizer, stop)
            self._engine.add(request)
        self._run_engine(builders, deltas)
        return [join_deltas(of_request) for of_request in deltas.values()]

    def _prompt_ids(self, prompt: str | Sequence[Mapping[str, Any]], raw: bool) -> list[int]:
        if isinstance(prompt, str):
            return self._base.render_prompt(prompt, raw=raw)
        return self._base.render_messages(prompt)

    def _run_engine(self, builders: dict[str, CompletionBuilder], deltas: dict[str, list[TextDelta]]) -> None:
        while self._engine.has_work:
            for output in self._engine.step():
                request_id = output.request_id
                delta = builders[request_id].push(output)
                deltas[request_id].append(delta)
                if delta.finish_reason is not None and output.finish_reason is None:  # ended by a stop string
                    self._engine.abort(request_id)


def _completion_builder(
    request: EngineRequest, tokenizer: Tokenizer, stop: Sequence[str], form: TextForm = PLAIN_TEXT
) -> CompletionBuilder:
    params = request.params
    detokenizer = IncrementalDetokenizer(tokenizer, stop, form, min_tokens=params.min_tokens)
    return CompletionBuilder(len(request.prompt_ids), detokenizer, lists_stop=params.prompt_logprobs is not None)


def _selections(adapters: OneAdapter | Sequence[AdapterSelection], count: int) -> list[AdapterSelection]:
    if adapters is None or isinstance(adapters, AdapterRef | ScaledAdapter):
        return [adapters] * count
    return list(adapters)


def _scaled(selection: AdapterSelection) -> list[ScaledAdapter]:
    """The adapters of one prompt in the form that requests have."""
    if selection is None:
        return []
    adapters = [selection] if isinstance(selection, AdapterRef | ScaledAdapter) else selection
    return [ScaledAdapter(one) if isinstance(one, AdapterRef) else one for one in adapters]
