"""`AsyncLLM`: what `LLM` does, for asyncio, with the engine in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Self, overload

from intaglio.base_model import BaseModel, make_request
from intaglio.completion import Completion, TextDelta, join_deltas
from intaglio.engine.client import EngineClient
from intaglio.llm.inputs import (
    AdapterSelection,
    Chat,
    JsonSchema,
    Sampling,
    adapter_path,
    as_chat_or_text,
    as_chats,
    as_texts,
    check_sampling,
    check_stop,
)
from intaglio.llm.running_model import RunningModel
from intaglio.model_source import local_model_path
from intaglio.request import AdapterRef, SamplingParams, ScaledAdapter
from intaglio.settings import DEFAULT_MODEL_ID, load_settings


class AsyncLLM(RunningModel):
    """A model whose engine runs in a process of its own, for asyncio.

        async with await AsyncLLM.open() as llm:                # the bundled Gemma 3 270M
            completion = await llm.generate("The capital of France is", raw=True)
            async for delta in llm.stream("Ticket: nothing works", adapters="intaglio-triage"):
                print(delta.text, end="", flush=True)

    Tasks may share one: their requests run together.
    """

    def __init__(self, model_id: str, base: BaseModel, engine: EngineClient) -> None:
        super().__init__(model_id, base, engine)
        self._slots = asyncio.Semaphore(engine.max_in_flight)  # what the engine takes; others wait here
        self._loaded: dict[str | Path, AdapterRef] = {}

    @classmethod
    async def open(cls, model: str | Path | None = None, **options: Any) -> Self:
        """Open a model and start its engine; returns when it is ready. `async with` or `close` ends the engine.

        model     a Hugging Face folder, a .gguf file, a packed file or hf:OWNER/REPO; None is the bundled 270M
        options   fields of `Settings`

        Raises ModelFormatError, HubError, SettingsError or EngineError.
        """
        settings = load_settings(**options)
        path = await asyncio.to_thread(local_model_path, DEFAULT_MODEL_ID if model is None else model, settings)
        model_id = str(DEFAULT_MODEL_ID if model is None else model)
        return (await cls.start_all({model_id: path}, settings))[model_id]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @overload
    async def generate(  # type: ignore[overload-overlap]  # a text is a sequence of texts too
        self,
        prompts: str,
        sampling_params: SamplingParams | None = None,
        *,
        adapters: AdapterSelection = None,
        raw: bool = False,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> Completion: ...

    @overload
    async def generate(
        self,
        prompts: Sequence[str],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapters: AdapterSelection | Sequence[AdapterSelection] = None,
        raw: bool = False,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> list[Completion]: ...

    async def generate(
        self,
        prompts: str | Sequence[str],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapters: AdapterSelection | Sequence[AdapterSelection] = None,
        raw: bool = False,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> Completion | list[Completion]:
        """As `LLM.generate`. Several calls at a time share the engine's batch."""
        texts, is_one = as_texts(prompts)
        ids = [self.render_prompt(text, raw=raw) for text in texts]
        sampling = await self._sampling(len(texts), sampling_params, adapters, json_schema, is_one=is_one)
        completions = await self._complete(ids, sampling, stop)
        return completions[0] if is_one else completions

    @overload
    async def chat(  # type: ignore[overload-overlap]
        self,
        messages: str | Chat,
        sampling_params: SamplingParams | None = None,
        *,
        adapters: AdapterSelection = None,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> Completion: ...

    @overload
    async def chat(
        self,
        messages: Sequence[str | Chat],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapters: AdapterSelection | Sequence[AdapterSelection] = None,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> list[Completion]: ...

    async def chat(
        self,
        messages: str | Chat | Sequence[str | Chat],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapters: AdapterSelection | Sequence[AdapterSelection] = None,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> Completion | list[Completion]:
        """As `LLM.chat`."""
        chats, is_one = as_chats(messages)
        ids = [self.render_messages(chat) for chat in chats]
        sampling = await self._sampling(len(chats), sampling_params, adapters, json_schema, is_one=is_one)
        completions = await self._complete(ids, sampling, stop)
        return completions[0] if is_one else completions

    async def stream(
        self,
        prompt: str | Chat,
        sampling_params: SamplingParams | None = None,
        *,
        adapters: AdapterSelection = None,
        raw: bool = False,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> AsyncIterator[TextDelta]:
        """As `LLM.stream`: an async iterator, which raises what is wrong with the request when it is first asked.

        A loop that is left early ends the request when the iterator is closed: `async with contextlib.aclosing(...)`
        closes it at once.
        """
        given = as_chat_or_text(prompt)
        ids = self.render_prompt(given, raw=raw) if isinstance(given, str) else self.render_messages(given)
        sampling = await self._sampling(1, sampling_params, adapters, json_schema, is_one=True)
        (mix,) = await self._scaled_adapters(sampling)
        async with self._slots:
            request = await self.submit(ids, sampling.params[0], adapters=mix, stop=check_stop(stop))
            try:
                async for delta in request:
                    if delta.failure is not None:
                        raise delta.failure
                    yield delta
            finally:
                await request.close()

    async def load_adapter(self, adapter: str | Path) -> AdapterRef:
        """As `LLM.load_adapter`."""
        path = str(adapter_path(adapter))
        found = AdapterRef((await self.verify(path)).digest, path)
        self._loaded[adapter] = found
        return found

    async def _sampling(
        self,
        count: int,
        params: SamplingParams | Sequence[SamplingParams] | None,
        adapters: AdapterSelection | Sequence[AdapterSelection],
        json_schema: JsonSchema | None,
        *,
        is_one: bool,
    ) -> Sampling:
        """In a thread, since a grammar may take a second to check."""
        return await asyncio.to_thread(check_sampling, count, params, adapters, json_schema, is_one=is_one)

    async def _scaled_adapters(self, sampling: Sampling) -> list[list[ScaledAdapter]]:
        for name in sampling.named_adapters():
            if name not in self._loaded:
                await self.load_adapter(name)
        return sampling.scaled_adapters(self._loaded)

    async def _complete(
        self, prompts: Sequence[list[int]], sampling: Sampling, stop: str | Sequence[str]
    ) -> list[Completion]:
        stops, mixes = check_stop(stop), await self._scaled_adapters(sampling)
        for ids, params, mix in zip(prompts, sampling.params, mixes, strict=True):  # all, before the first one runs
            make_request(ids, params, mix, self.window, self.tokenizer.vocab_size)

        async def complete(ids: list[int], params: SamplingParams, mix: list[ScaledAdapter]) -> Completion:
            async with self._slots:
                request = await self.submit(ids, params, adapters=mix, stop=stops)
                try:
                    return join_deltas([delta async for delta in request])
                finally:
                    await request.close()

        tasks = [asyncio.create_task(complete(*one)) for one in zip(prompts, sampling.params, mixes, strict=True)]
        try:
            return await asyncio.gather(*tasks)
        finally:  # if one failed, or the caller was cancelled
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
