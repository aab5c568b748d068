"""`LLM`: a model and its engine in this process."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, overload

from intaglio.base_model import BaseModel, make_request
from intaglio.completion import Completion, TextDelta, Usage, join_deltas, request_builder
from intaglio.engine.core_process import ServedModel, build_engine
from intaglio.engine.memory.machine import plan_for_machine
from intaglio.errors import EngineError
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
from intaglio.model.config import ModelConfig
from intaglio.model_source import local_model_path
from intaglio.request import AdapterRef, EngineRequest, FinishReason, SamplingParams, Verification
from intaglio.settings import DEFAULT_MODEL_ID, load_settings
from intaglio.text import Tokenizer

logger = logging.getLogger(__name__)


class LLM:
    """A model and its engine in this process, for scripts and notebooks.

        with LLM() as llm:                                      # the bundled Gemma 3 270M
            print(llm.generate("The capital of France is", raw=True).text)
            for delta in llm.stream("Ticket: nothing works", adapters="intaglio-triage"):
                print(delta.text, end="", flush=True)

    One prompt gives one `Completion`, a list of prompts a list of them, computed in one batch. Threads may share an
    LLM: their requests run together. A process that ends needs no `close`, which frees the memory.

    model     a Hugging Face folder, a .gguf file, a packed file or hf:OWNER/REPO; None is the bundled 270M
    options   fields of `Settings`
    """

    def __init__(self, model: str | Path | None = None, **options: Any) -> None:
        """Raises ModelFormatError, HubError or SettingsError."""
        settings = load_settings(**options)
        path = local_model_path(DEFAULT_MODEL_ID if model is None else model, settings)
        plan = plan_for_machine([path], settings)
        logger.info("%s", plan.table([path.name]))
        self._base = BaseModel.open(path, plan.of_model(0))
        spec = self._base.engine_spec(plan.of_model(0))
        self._served: ServedModel | None = build_engine(spec)
        self._lock = threading.Lock()  # of the engine and of what is below; never held while text is handed out
        self._running: dict[str, _Running] = {}
        self._loaded: dict[str | Path, AdapterRef] = {}
        self.window = self._served.engine.max_sequence_tokens

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

    def load_adapter(self, adapter: str | Path) -> AdapterRef:
        """Check and verify a folder of PEFT or MLX-LM, a GGUF adapter, or a demo adapter by name.

        An adapter that a request names is loaded once; load it again if its files have changed.
        Raises AdapterError with the reason.
        """
        path = adapter_path(adapter)
        with self._lock:
            found = AdapterRef(self._open().adapters.verify(str(path)).digest, str(path))
            self._loaded[adapter] = found
            return found

    def verify(self, ref: AdapterRef) -> Verification:
        """The adapter's verification, made now or in an earlier process. Raises AdapterError."""
        with self._lock:
            return self._open().adapters.verify(ref.folder, ref.digest).verification

    @overload
    def generate(  # type: ignore[overload-overlap]  # a text is a sequence of texts too
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
    def generate(
        self,
        prompts: Sequence[str],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapters: AdapterSelection | Sequence[AdapterSelection] = None,
        raw: bool = False,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> list[Completion]: ...

    def generate(
        self,
        prompts: str | Sequence[str],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapters: AdapterSelection | Sequence[AdapterSelection] = None,
        raw: bool = False,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> Completion | list[Completion]:
        """Complete one text, or a list of texts in one batch.

        sampling_params  for all prompts, or one for each
        adapters         a path, the name of a demo adapter, what `load_adapter` returned, or `ScaledAdapter(ref, 0.7)`;
                         for one prompt a list of them is added up; for a list of prompts it has one selection for each
        raw              the text is the prompt, without the turns of a chat
        stop             texts that end a completion, which ends before them
        json_schema      a JSON schema or a pydantic model class: the completion is JSON that it allows

        Raises BadInputError, ContextLengthError, GrammarError or AdapterError before anything runs, EngineError if a
        request fails.
        """
        texts, is_one = as_texts(prompts)
        sampling = check_sampling(len(texts), sampling_params, adapters, json_schema, is_one=is_one)
        completions = self._complete([self._base.render_prompt(text, raw=raw) for text in texts], sampling, stop)
        return completions[0] if is_one else completions

    @overload
    def chat(  # type: ignore[overload-overlap]
        self,
        messages: str | Chat,
        sampling_params: SamplingParams | None = None,
        *,
        adapters: AdapterSelection = None,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> Completion: ...

    @overload
    def chat(
        self,
        messages: Sequence[str | Chat],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapters: AdapterSelection | Sequence[AdapterSelection] = None,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> list[Completion]: ...

    def chat(
        self,
        messages: str | Chat | Sequence[str | Chat],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapters: AdapterSelection | Sequence[AdapterSelection] = None,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> Completion | list[Completion]:
        """Answer one chat, a list of messages, or a list of chats in one batch. A text is a chat of one user's message.

        The rest is as in `generate`. Raises ChatError too, naming the message.
        """
        chats, is_one = as_chats(messages)
        sampling = check_sampling(len(chats), sampling_params, adapters, json_schema, is_one=is_one)
        completions = self._complete([self._base.render_messages(chat) for chat in chats], sampling, stop)
        return completions[0] if is_one else completions

    def stream(
        self,
        prompt: str | Chat,
        sampling_params: SamplingParams | None = None,
        *,
        adapters: AdapterSelection = None,
        raw: bool = False,
        stop: str | Sequence[str] = (),
        json_schema: JsonSchema | None = None,
    ) -> Iterator[TextDelta]:
        """The completion of one text or chat, piece by piece; the last piece has `finish_reason` and `usage`.

        The model computes while the next piece is asked for. A loop that is left early ends the request.
        Raises as `generate` and `chat` do: what is wrong with the request before the first piece is asked for.
        """
        given = as_chat_or_text(prompt)
        sampling = check_sampling(1, sampling_params, adapters, json_schema, is_one=True)
        ids = self._base.render_prompt(given, raw=raw) if isinstance(given, str) else self._base.render_messages(given)
        return self._deltas(_Running(self._requests([ids], sampling)[0], self.tokenizer, check_stop(stop)))

    def close(self) -> None:
        """Free the model's memory. Requests that are running in other threads fail."""
        with self._lock:
            self._served = None
            self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- requests

    def _open(self) -> ServedModel:
        if self._served is None:
            raise EngineError("this LLM is closed")
        return self._served

    def _requests(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[EngineRequest]:
        for name in sampling.named_adapters():
            if name not in self._loaded:
                self.load_adapter(name)
        vocab_size = self.tokenizer.vocab_size
        return [
            make_request(ids, params, adapters, self.window, vocab_size)
            for ids, params, adapters in zip(
                prompts, sampling.params, sampling.scaled_adapters(self._loaded), strict=True
            )
        ]

    def _complete(
        self, prompts: Sequence[list[int]], sampling: Sampling, stop: str | Sequence[str]
    ) -> list[Completion]:
        stops = check_stop(stop)
        all_running = [_Running(request, self.tokenizer, stops) for request in self._requests(prompts, sampling)]
        try:
            for running in all_running:
                self._start(running)
            return [join_deltas(list(self._rest_of(running))) for running in all_running]
        finally:
            for running in all_running:
                self._end(running)

    def _deltas(self, running: _Running) -> Iterator[TextDelta]:
        try:
            self._start(running)
            for delta in self._rest_of(running):
                if delta.failure is not None:
                    raise delta.failure
                yield delta
        finally:
            self._end(running)

    def _start(self, running: _Running) -> None:
        with self._lock:
            engine = self._open().engine
            if running.is_empty:
                running.deltas.append(TextDelta("", FinishReason.LENGTH, Usage(len(running.request.prompt_ids), 0)))
                return
            self._running[running.request.request_id] = running
            engine.add(running.request)

    def _rest_of(self, running: _Running) -> Iterator[TextDelta]:
        """The deltas up to the last. A thread that waits for one takes a step of the engine, for all threads."""
        while True:
            with self._lock:
                if not running.deltas:
                    self._step()
                deltas = list(running.deltas)
                running.deltas.clear()
            for delta in deltas:
                yield delta
                if delta.finish_reason is not None:
                    return

    def _step(self) -> None:
        engine = self._open().engine
        for output in engine.step():
            running = self._running.get(output.request_id)
            if running is None:  # it was ended by a stop string or by its caller in this step
                continue
            delta = running.builder.push(output)
            running.deltas.append(delta)
            if delta.finish_reason is not None:
                del self._running[output.request_id]
                if output.finish_reason is None:  # ended by a stop string, which the engine knows nothing of
                    engine.abort(output.request_id)

    def _end(self, running: _Running) -> None:
        """Free what a request holds that has not ended; harmless otherwise."""
        with self._lock:
            if self._running.pop(running.request.request_id, None) is not None:
                self._open().engine.abort(running.request.request_id)


class _Running:
    """One request, and the deltas of its text that have not been read yet."""

    def __init__(self, request: EngineRequest, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self.request = request
        self.builder = request_builder(request, tokenizer, stop)
        self.deltas: deque[TextDelta] = deque()
        self.is_empty = request.params.max_tokens == 0 and request.params.prompt_logprobs is None
