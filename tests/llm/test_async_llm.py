from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from pydantic import BaseModel

from intaglio import LLM, AsyncLLM, FinishReason, SamplingParams
from intaglio.errors import AdapterError, BadInputError, ContextLengthError, EngineError, ModelFormatError
from tests.helpers.adapters import write_peft_adapter
from tests.llm.conftest import GREEDY

LONG = SamplingParams(temperature=0, max_tokens=200, ignore_stop_tokens=True)


@pytest.fixture
def run(base_folder: Path) -> Callable[[Callable[[AsyncLLM], Awaitable[None]]], None]:
    """Calls a coroutine function with an open AsyncLLM that takes few requests at a time."""

    def run(act: Callable[[AsyncLLM], Awaitable[None]]) -> None:
        async def main() -> None:
            options = {"cache_dir": base_folder / "cache", "kv_cache_bytes": 1 << 24}
            async with await AsyncLLM.open(base_folder, max_running=2, max_waiting=1, **options) as llm:
                await act(llm)

        asyncio.run(main())

    return run


Run = Callable[[Callable[[AsyncLLM], Awaitable[None]]], None]


def test_it_completes_what_llm_completes(llm: LLM, run: Run, tmp_path: Path) -> None:
    adapter = write_peft_adapter(tmp_path / "a", llm.config, seed=9)
    chat = [{"role": "user", "content": "two"}]

    async def act(asynchronous: AsyncLLM) -> None:
        assert (await asynchronous.generate("one", GREEDY)).text == llm.generate("one", GREEDY).text
        many = ["one", "two", "three", "four", "five", "six"]
        texts = [one.text for one in await asynchronous.generate(many, GREEDY, adapters=adapter)]
        assert texts == [one.text for one in llm.generate(many, GREEDY, adapters=adapter)]
        assert (await asynchronous.chat(chat, GREEDY)).text == llm.chat(chat, GREEDY).text
        assert len(await asynchronous.chat([chat, chat], GREEDY)) == 2
        deltas = [delta async for delta in asynchronous.stream("one", GREEDY, adapters=str(adapter))]
        assert "".join(delta.text for delta in deltas) == llm.generate("one", GREEDY, adapters=adapter).text
        assert deltas[-1].finish_reason is FinishReason.LENGTH

    run(act)


def test_more_prompts_than_the_engine_takes_wait_their_turn(run: Run) -> None:
    async def act(llm: AsyncLLM) -> None:
        first, second = await asyncio.gather(llm.generate(["one"] * 7, GREEDY), llm.generate(["two"] * 7, GREEDY))
        assert [len({one.text for one in completions}) for completions in (first, second)] == [1, 1]

    run(act)


class Colour(BaseModel, extra="forbid"):
    red: bool


def test_a_schema_is_followed_and_a_wrong_call_is_refused_before_anything_runs(run: Run) -> None:
    async def act(llm: AsyncLLM) -> None:
        found = await llm.generate("one", SamplingParams(seed=1, max_tokens=40), json_schema=Colour)
        Colour.model_validate(json.loads(found.text))
        with pytest.raises(BadInputError, match="prompts is 5"):
            await llm.generate(5)  # type: ignore[call-overload]
        with pytest.raises(ContextLengthError):
            await llm.generate(["one", "two"], [GREEDY, SamplingParams(max_tokens=100_000)])
        with pytest.raises(AdapterError, match="no demo adapter"):
            await llm.generate("one", adapters="nowhere")
        assert llm.engine.num_in_flight == 0

    run(act)


def test_a_stream_that_is_closed_early_ends_its_request(run: Run) -> None:
    async def first_of(stream: AsyncIterator[object]) -> None:
        async with aclosing(stream) as pieces:  # type: ignore[type-var]
            async for _ in pieces:
                return

    async def act(llm: AsyncLLM) -> None:
        for _ in range(6):  # more than the engine takes at a time
            await first_of(llm.stream("one", LONG))
        assert (await llm.generate("one", GREEDY)).text

    run(act)


def test_a_call_that_is_cancelled_ends_its_requests(run: Run) -> None:
    async def act(llm: AsyncLLM) -> None:
        stream = llm.stream("two", LONG)
        task = asyncio.create_task(llm.generate(["one"] * 5, LONG))
        await anext(stream)  # the engine is at work on both
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.aclose()  # type: ignore[attr-defined]
        assert [one.text for one in await llm.generate(["one"] * 3, GREEDY)]

    run(act)


def test_a_wrong_path_and_a_closed_model_say_so(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="nowhere"):
        asyncio.run(AsyncLLM.open(tmp_path / "nowhere"))
    kept: list[AsyncLLM] = []

    async def act(llm: AsyncLLM) -> None:
        kept.append(llm)
        await llm.close()
        with pytest.raises(EngineError):
            await llm.generate("one", GREEDY)

    run(act)
