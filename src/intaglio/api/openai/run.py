"""All sequences of one OpenAI-compatible request: started together, read as they come, ended together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from intaglio.api.http.errors import REQUEST_ID_HEADER
from intaglio.api.inference.run import Run, end_run, prepare, submit
from intaglio.api.inference.run_input import RunInput
from intaglio.api.openai.choice import ChoiceReader
from intaglio.api.openai.input import OpenAIInput
from intaglio.api.state import ServerState
from intaglio.completion import TextDelta, Usage
from intaglio.errors import BadInputError, EngineError
from intaglio.request import FinishReason

if TYPE_CHECKING:
    from intaglio.llm import AsyncLLM


@dataclass(frozen=True, slots=True)
class Choices:
    """The running sequences of a request; a choice's index is its place here.

    runs      n of the first prompt, then n of the second, and so on
    n         sequences per prompt
    prefixes  what stands in front of each answer: the prompt's text if the caller wants it back, else nothing
    """

    request_id: str
    runs: tuple[Run, ...]
    n: int
    prefixes: tuple[str, ...]

    def readers(self) -> list[ChoiceReader]:
        """One for each choice."""
        return [ChoiceReader(text, run.asked.tools) for text, run in zip(self.prefixes, self.runs, strict=True)]

    @property
    def headers(self) -> dict[str, str]:
        return {**self.runs[0].headers, REQUEST_ID_HEADER: self.request_id}

    @property
    def usage(self) -> Usage:
        """Of the whole request, after its end: each prompt counts once, however many answers it was given."""
        each = [_usage(run) for run in self.runs]
        firsts = each[:: self.n]
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in firsts),
            completion_tokens=sum(usage.completion_tokens for usage in each),
            cached_tokens=sum(usage.cached_tokens for usage in firsts),
        )

    async def end(self, failed: BaseException | None) -> None:
        """Free every sequence that still runs, and write a log line for each."""
        endings = (end_run(run, None if _ended_well(run) else failed) for run in self.runs)
        await asyncio.gather(*endings)


async def start_choices(state: ServerState, account: str, asked: OpenAIInput, request_id: str) -> Choices:
    """Start every sequence, or none. Raises as `start_run` does, before any of them has given text."""
    llm = state.llm(asked.base)
    for prompt in asked.prompts:
        _check_token_ids(prompt, llm.tokenizer.vocab_size)
    prepared = [await prepare(state, account, asked.base, prompt) for prompt in asked.prompts]
    adapters = prepared[0].adapters  # the same for all, even if one is replaced while we are here
    runs: list[Run] = []
    try:
        for ready, prompt in zip(prepared, asked.prompts, strict=True):
            for one in asked.choices(prompt):
                name = request_id if asked.num_choices == 1 else f"{request_id}/{len(runs)}"
                runs.append(await submit(replace(ready, adapters=adapters), one, name))
    except BaseException as error:
        await asyncio.gather(*(end_run(run, error) for run in runs))
        raise
    echoes = [_text(llm, prompt) if asked.echo else "" for prompt in asked.prompts]
    return Choices(request_id, tuple(runs), asked.n, tuple(text for text in echoes for _ in range(asked.n)))


async def deltas(runs: Sequence[Run]) -> AsyncGenerator[tuple[int, TextDelta], None]:
    """What the sequences give, as it comes, each piece with its choice's index. Raises EngineError if one fails."""
    if len(runs) == 1:
        async for only in runs[0].generation:
            runs[0].record.note(only)
            yield 0, only
        return
    news: asyncio.Queue[tuple[int, TextDelta | None]] = asyncio.Queue()
    readers = [asyncio.create_task(_read(index, run, news)) for index, run in enumerate(runs)]
    try:
        num_open = len(runs)
        while num_open:
            index, delta = await news.get()
            if delta is None:
                num_open -= 1
                await readers[index]  # raises what ended it, if it was not its end
            else:
                yield index, delta
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _read(index: int, run: Run, news: asyncio.Queue[tuple[int, TextDelta | None]]) -> None:
    try:
        async for delta in run.generation:
            run.record.note(delta)
            news.put_nowait((index, delta))
    finally:
        news.put_nowait((index, None))


def _ended_well(run: Run) -> bool:
    return run.record.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)


def _usage(run: Run) -> Usage:
    if run.record.usage is None:
        raise EngineError("the generation ended without saying how many tokens it took")
    return run.record.usage


def _check_token_ids(prompt: RunInput, vocab_size: int) -> None:
    named = {"prompt": prompt.prompt if isinstance(prompt.prompt, list) else (), "logit_bias": prompt.params.logit_bias}
    for field, ids in named.items():
        highest = max(ids, default=0)
        if highest >= vocab_size:
            raise BadInputError(f"'/{field}' has the token id {highest}; this model's ids are < {vocab_size}")


def _text(llm: AsyncLLM, asked: RunInput) -> str:
    return asked.prompt if isinstance(asked.prompt, str) else llm.tokenizer.decode(asked.prompt or [])
