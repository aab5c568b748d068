"""`RunningModel`: a model whose engine runs in a process of its own, as the server uses it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeAlias

import msgspec

from intaglio.base_model import BaseModel, make_request
from intaglio.completion import CompletionBuilder, TextDelta, Usage, request_builder
from intaglio.engine.client import EngineClient, OnLoading
from intaglio.engine.memory.machine import plan_for_machine
from intaglio.engine.token_stream import TokenStream
from intaglio.model.config import ModelConfig
from intaglio.request import FinishReason, Priority, SamplingParams, ScaledAdapter, VerifiedAdapter
from intaglio.settings import Settings
from intaglio.status import EngineStatus
from intaglio.text import PLAIN_TEXT, TextForm, Tokenizer

logger = logging.getLogger(__name__)

OnModelLoading: TypeAlias = Callable[[str, int, int], None]


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

    async def close(self) -> None:
        """Abort, and return when the engine has ended the request and takes another one in its place."""
        if self._tokens is not None:
            await self._tokens.abort()
            await self._tokens.wait_ended()


class RunningModel:
    """One base model: tokenizer and templates in this process, the engine in its own. Takes token ids.

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
    ) -> dict[str, Self]:
        """An engine for each model id, with caches that fit into memory together.

        on_loading  called with the model id while weights are quantized; see `EngineClient.start`
        Raises SettingsError for what this machine cannot run or hold, before any model is loaded, and as `start` does.
        """
        plan = await asyncio.to_thread(plan_for_machine, list(paths.values()), settings)
        logger.info("%s", plan.table(list(paths)))
        models: dict[str, Self] = {}
        try:
            for index, (model_id, path) in enumerate(paths.items()):
                shown = None if on_loading is None else partial(on_loading, model_id)
                models[model_id] = await cls.start(model_id, path, plan.of_model(index), shown)
        except BaseException:
            await asyncio.gather(*(llm.close() for llm in models.values()))
            raise
        return models

    @classmethod
    async def start(cls, model_id: str, path: Path, settings: Settings, on_loading: OnLoading | None = None) -> Self:
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
    def is_pretrained(self) -> bool:
        """Whether the base is known to be pre-trained only: it continues texts, and was never trained to answer."""
        return self._base.is_pretrained

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
            RequestHandle(stream, request_builder(request, self.tokenizer, stop, form), len(prompt_ids))
            for request, stream in zip(requests, streams, strict=True)
        ]

    async def verify(self, folder: str, digest: str | None = None) -> VerifiedAdapter:
        """Read, check, verify and pack the adapter in a folder.

        digest  what the adapter must have, if that is known: then one that was verified here before is not read again
        Raises AdapterError with the reason if it cannot be served, EngineError if verification could not be done.
        """
        return await self._engine.verify(folder, digest)

    async def status(self) -> EngineStatus:
        """What the engine is doing. Raises EngineDeadError if there is none now, or it does not respond."""
        return await self._engine.status()

    async def close(self) -> None:
        """End the engine process. Requests that are running fail."""
        await self._engine.close()
