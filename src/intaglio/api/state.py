"""What the routes share: settings, loaded models, the finetune store and the batches. Knows no route."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from intaglio.api.background_verification import BackgroundVerification
from intaglio.api.catalogue import HOSTED, serving_advice
from intaglio.batches import BatchStore
from intaglio.conversations import ResponseStore
from intaglio.errors import ModelNotFoundError, ModelWithoutWeightsError
from intaglio.finetunes import FinetuneStore
from intaglio.settings import Settings
from intaglio.wording import did_you_mean, shown_name, similar_names

if TYPE_CHECKING:  # the tests put a fake of the same shape here, and need no engine to import this
    from intaglio.llm import AsyncLLM

MAX_CONCURRENT_GRAMMARS = 2

_Result = TypeVar("_Result")


@dataclass(slots=True)
class ServerState:
    """Shared by all requests of one server.

    models                   loaded bases by model id
    stand_ins                id without weights -> id of the loaded base that answers in its place
    batch_added              set when a batch has been accepted; the batch runner waits for it
    background_verification  of adapters whose verification is not stored
    text_threads             tokenize and compile grammars; not those that wait for the database or a disk
    grammar_slots            bounds the grammars compiled at a time: a hostile one takes a second, and tokenizing needs
                             the same few threads
    """

    settings: Settings
    models: dict[str, AsyncLLM]
    finetunes: FinetuneStore
    batches: BatchStore
    responses: ResponseStore
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    background_verification: BackgroundVerification = field(default_factory=BackgroundVerification)
    text_threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(thread_name_prefix="text"))
    grammar_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONCURRENT_GRAMMARS))
    batch_added: asyncio.Event = field(default_factory=asyncio.Event)
    _check_locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _closed: bool = False

    @property
    def ready(self) -> bool:
        return all(llm.ready for llm in self.models.values())

    @property
    def callable_models(self) -> list[str]:
        """The ids that can be run: of loaded bases, and those that one of them answers for."""
        return [*self.models, *self.stand_ins]

    def llm(self, model_id: str) -> AsyncLLM:
        """The loaded base that answers for that id. Raises ModelNotFoundError or ModelWithoutWeightsError."""
        found = self.find_llm(model_id)
        if found is not None:
            return found
        if model_id in HOSTED:
            raise ModelWithoutWeightsError(
                f"{model_id} is known, but this server has no weights for it. {serving_advice(HOSTED[model_id])}"
            )
        raise self.no_such_model(model_id)

    def no_such_model(self, model_id: str, adapters: tuple[str, ...] = ()) -> ModelNotFoundError:
        """The error for an unknown id. adapters: names of those that resemble it."""
        similar = similar_names(model_id, self.callable_models)
        advice = did_you_mean([*similar, *(f"the adapter {name}" for name in adapters)])
        listed = f"Models of this server: {', '.join(sorted(self.callable_models))}"
        return ModelNotFoundError(
            f"No such model {shown_name(model_id)} or task. {advice}{' ' if advice else ''}{listed}"
        )

    def find_llm(self, model_id: str) -> AsyncLLM | None:
        """The loaded base that answers for that id; None if there is none."""
        return self.models.get(self.stand_ins.get(model_id, model_id))

    async def run_in_text_thread(self, act: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run `act(*arguments)` in one of the `text_threads`."""
        return await asyncio.get_running_loop().run_in_executor(self.text_threads, act, *arguments)

    def check_lock(self, model_id: str) -> asyncio.Lock:
        """Held while an adapter of that base is checked: one at a time, since a check has a whole adapter in memory,
        here and then in the base's engine. Per base, since one engine may be restarting.
        """
        return self._check_locks.setdefault(self.stand_ins.get(model_id, model_id), asyncio.Lock())

    def demo_adapter_names(self, model_id: str) -> list[tuple[str, str]]:
        """(name, example prompt) of each demo adapter of a base."""
        return [(demo.name, demo.example_prompt or "") for demo in self.finetunes.list_demos(model_id)]

    async def close(self) -> None:
        """Stop the engines and close the stores. May be called again."""
        if self._closed:
            return
        self._closed = True
        await self.background_verification.close()
        await asyncio.gather(*(llm.close() for llm in self.models.values()))
        await asyncio.to_thread(self.finetunes.close)
        await asyncio.to_thread(self.batches.close)
        await asyncio.to_thread(self.responses.close)
        self.text_threads.shutdown(wait=False)
