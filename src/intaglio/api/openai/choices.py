"""All sequences of one OpenAI-compatible request: started together, read as they come, ended together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from intaglio.api.http.errors import REQUEST_ID_HEADER
from intaglio.api.inference.results import Usage, usage_shape
from intaglio.api.inference.run_input import RunInput
from intaglio.api.inference.running_request import RunningRequest, prepare, submit_choices
from intaglio.api.openai.choice_reader import ChoiceDelta, ChoiceReader, merged
from intaglio.api.openai.input import OpenAIInput
from intaglio.api.openai.prompt_scores import Prompt
from intaglio.api.state import ServerState
from intaglio.completion import TextDelta
from intaglio.errors import BadInputError

if TYPE_CHECKING:
    from intaglio.llm import AsyncLLM


@dataclass(frozen=True, slots=True)
class Choices:
    """The running sequences of a request; a choice's index is its index here. Leaving the context ends them all.

    running   n of the first prompt, then n of the second, and so on
    n         sequences per prompt
    prompts   of each completion
    """

    request_id: str
    running: tuple[RunningRequest, ...]
    n: int
    prompts: tuple[Prompt, ...]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await _end(self.running, error)

    def readers(self) -> list[ChoiceReader]:
        """One for each choice."""
        pairs = zip(self.prompts, self.running, strict=True)
        return [ChoiceReader(prompt, one.run_input.tools) for prompt, one in pairs]

    @property
    def headers(self) -> dict[str, str]:
        return {**self.running[0].headers, REQUEST_ID_HEADER: self.request_id}

    @property
    def usage(self) -> Usage:
        """Of the whole request, after its end: each prompt counts once, however many completions it has."""
        each = [one.log.end()[0] for one in self.running]
        firsts = each[:: self.n]
        return usage_shape(
            sum(usage.prompt_tokens for usage in firsts),
            sum(usage.completion_tokens for usage in each),
            sum(usage.prompt_tokens_details.cached_tokens for usage in firsts),
        )

    @property
    def usage_so_far(self) -> Usage:
        """Of what has come until now."""
        prompts = sum(one.num_prompt_tokens for one in self.running[:: self.n])
        return usage_shape(prompts, sum(one.log.num_tokens for one in self.running), 0)

    async def deltas(self) -> AsyncGenerator[tuple[int, TextDelta], None]:
        """Pieces of all completions as they come, each with its choice's index. Raises EngineError if one fails."""
        if len(self.running) == 1:
            async with aclosing(self.running[0].deltas()) as deltas:
                async for only in deltas:
                    yield 0, only
            return
        queue: asyncio.Queue[tuple[int, TextDelta | None]] = asyncio.Queue()
        readers = [asyncio.create_task(_read(index, one, queue)) for index, one in enumerate(self.running)]
        try:
            num_open = len(readers)
            while num_open:
                index, delta = await queue.get()
                if delta is None:
                    num_open -= 1
                    await readers[index]  # raises what ended it, if it was not its end
                else:
                    yield index, delta
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


async def start_choices(state: ServerState, account: str, openai_input: OpenAIInput, request_id: str) -> Choices:
    """Start every sequence, or none. Raises as `start_request` does."""
    llm = state.llm(openai_input.base)
    for prompt in openai_input.prompts:
        _check_token_ids(prompt, llm.tokenizer.vocab_size)
    prepared = [await prepare(state, account, openai_input.base, prompt) for prompt in openai_input.prompts]
    adapters = prepared[0].adapters  # the same for all, even if one is replaced meanwhile
    running: list[RunningRequest] = []
    try:
        for ready, prompt in zip(prepared, openai_input.prompts, strict=True):
            each = openai_input.choices(prompt)
            names = [f"{request_id}/{len(running) + number}" for number in range(len(each))]
            if openai_input.num_choices == 1:
                names = [request_id]
            running += await submit_choices(replace(ready, adapters=adapters), each, names)
    except BaseException as error:
        await _end(running, error)
        raise
    pairs = zip(openai_input.prompts, prepared, strict=True)
    prompts = [_prompt(llm, openai_input, prompt, ready.prompt_ids) for prompt, ready in pairs]
    repeated = tuple(prompt for prompt in prompts for _ in range(openai_input.n))
    return Choices(request_id, tuple(running), openai_input.n, repeated)


async def collect(choices: Choices) -> list[ChoiceDelta]:
    """Wait for the end of every choice. Raises EngineError if one fails."""
    readers = choices.readers()
    pieces: list[list[ChoiceDelta]] = [[] for _ in readers]
    async with aclosing(choices.deltas()) as deltas:
        async for index, delta in deltas:
            pieces[index].append(readers[index].take(delta))
    return [merged(of_choice) for of_choice in pieces]


async def _end(running: Sequence[RunningRequest], error: BaseException | None) -> None:
    """Free every sequence and write a log line for each; the error is not of those that had finished."""
    endings = (one.end(None if one.log.succeeded else error) for one in running)
    await asyncio.gather(*endings)


async def _read(index: int, running: RunningRequest, queue: asyncio.Queue[tuple[int, TextDelta | None]]) -> None:
    try:
        async for delta in running.deltas():
            queue.put_nowait((index, delta))
    finally:
        queue.put_nowait((index, None))


def _check_token_ids(prompt: RunInput, vocab_size: int) -> None:
    named = {
        "prompt": prompt.prompt if isinstance(prompt.prompt, list) else (),
        "logit_bias": prompt.params.logit_bias,
        "stop_token_ids": prompt.params.stop_token_ids,
    }
    for field, ids in named.items():
        highest = max(ids, default=0)
        if highest >= vocab_size:
            raise BadInputError(f"{field} has the token id {highest}; this model's ids are < {vocab_size}")


def _prompt(llm: AsyncLLM, openai_input: OpenAIInput, run_input: RunInput, ids: list[int]) -> Prompt:
    # Of a prompt that was cut only the tokens are known.
    text = run_input.prompt if isinstance(run_input.prompt, str) and run_input.truncation is None else None
    return Prompt(
        ids,
        llm.tokenizer,
        text,
        echoed=(llm.tokenizer.decode(ids) if text is None else text) if openai_input.echo else None,
        num_echoed=run_input.params.logprobs or 0,
        num_by_id=openai_input.prompt_logprobs,
        tokens_as_ids=run_input.form.tokens_as_ids,
    )
