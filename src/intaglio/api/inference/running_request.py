"""From a checked input to a running request: shared by all routes that run a model, and by batches.

RunInput --prepare--> model, adapters, grammar, token ids --submit--> RunningRequest --> text deltas
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from intaglio.api.http.errors import REQUEST_ID_HEADER, VERSION_HEADER
from intaglio.api.inference.forms.structured_output import grammar_and_notes, parse_json_completion, read_tool_calls
from intaglio.api.inference.lora_field import NamedAdapter
from intaglio.api.inference.request_log import RequestLog
from intaglio.api.inference.results import RunResult, tool_calls_json
from intaglio.api.inference.run_input import PromptEnding, RunInput
from intaglio.api.stand_ins import stand_in_headers
from intaglio.api.state import ServerState
from intaglio.completion import TextDelta
from intaglio.request import FinishReason, Priority, ScaledAdapter, mix_identity
from intaglio.text.tools import ToolCall, with_tools
from intaglio.version import __version__

if TYPE_CHECKING:
    from intaglio.llm import AsyncLLM, RequestHandle

DIGEST_HEADER = "intaglio-adapter-digest"
MESSAGES_HEADER = "intaglio-messages"
_MAX_HEADER = 1_000  # characters
TOOL_CALLS = "tool_calls"  # the finish reason of a completion that consists of tool calls


@dataclass(frozen=True, slots=True)
class RunningRequest:
    """A request that the engine has accepted. Exiting its context frees the sequence and writes the log line.

    headers            of the response: request id, version, the model that stood in, its adapters' identity, notes
    num_prompt_tokens  known before the first token of the completion
    max_tokens         of the completion
    notes              sentences for the caller: what was not done as asked
    """

    handle: RequestHandle
    log: RequestLog
    headers: dict[str, str]
    run_input: RunInput
    num_prompt_tokens: int
    max_tokens: int
    notes: tuple[str, ...] = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.end(error)

    async def end(self, error: BaseException | None) -> None:
        """Free the sequence if it still runs, and write the log line. `error` ended the request early, if any did."""
        await self.handle.abort()  # without effect after the end
        self.log.close(error)

    async def deltas(self) -> AsyncGenerator[TextDelta, None]:
        """The completion as it comes; `log` has usage and finish reason after it. Raises EngineError if it fails."""
        async for delta in self.handle:
            self.log.add(delta)
            yield delta

    async def result(self) -> RunResult:
        """Wait for the end: text, tool calls, or in JSON mode the parsed completion.

        Raises EngineError, or IncompleteJsonError if a call or JSON was cut off.
        """
        text = "".join([delta.text async for delta in self.deltas()])
        usage, reason = self.log.end()
        calls = self.tool_calls(text)
        if calls:
            return RunResult(response="", tool_calls=tool_calls_json(calls), usage=usage, finish_reason=TOOL_CALLS)
        response = text if self.run_input.json_mode is None else parse_json_completion(text, *self._ending)
        return RunResult(response=response, usage=usage, finish_reason=reason)

    def tool_calls(self, text: str) -> list[ToolCall]:
        """The tool calls that make up the completion; [] if it is text.

        Raises IncompleteJsonError for a call that was cut off.
        """
        return read_tool_calls(text, self.run_input.tools, *self._ending)

    @property
    def _ending(self) -> tuple[FinishReason, int]:
        return self.log.finish_reason or FinishReason.ERROR, self.max_tokens


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that can be submitted to the engine, once or several times.

    answered_by  the model that stands in for `model`; None if it has weights of its own
    adapters     empty for the base model
    grammar      of the completions; None if any text is allowed
    notes        sentences for the caller
    """

    llm: AsyncLLM
    model: str
    answered_by: str | None
    adapters: tuple[ScaledAdapter, ...]
    prompt_ids: list[int]
    grammar: str | None
    notes: tuple[str, ...] = ()


async def start_request(
    state: ServerState,
    account: str,
    model: str,
    run_input: RunInput,
    request_id: str,
    *,
    priority: Priority = Priority.INTERACTIVE,
) -> RunningRequest:
    """Prepare and submit. Raises RequestError for a fault of the request, CapacityError or EngineDeadError."""
    return await submit(await prepare(state, account, model, run_input), run_input, request_id, priority=priority)


async def prepare(state: ServerState, account: str, model: str, run_input: RunInput) -> PreparedRequest:
    """Find the model and adapters, tokenize the prompt and compile the grammar of the completion.

    Raises RequestError for a fault of the request.
    """
    llm = state.llm(model)
    adapters = await _resolve_adapters(state, account, run_input.adapters, model)
    grammar: str | None = None
    notes: tuple[str, ...] = ()
    if run_input.text_grammar is not None:
        async with state.grammar_slots:
            grammar = await state.run_in_text_thread(run_input.text_grammar.lark)
    elif run_input.json_mode or run_input.tools:
        async with state.grammar_slots:
            grammar, notes = await state.run_in_text_thread(grammar_and_notes, run_input.json_mode, run_input.tools)
    prompt_ids = await state.run_in_text_thread(_prompt_ids, llm, run_input)  # long prompts take a while to tokenize
    if run_input.truncation is not None:
        prompt_ids = run_input.truncation.kept(prompt_ids, llm.window, run_input.params.max_tokens)
    return PreparedRequest(llm, model, state.stand_ins.get(model), adapters, prompt_ids, grammar, notes)


async def submit(
    prepared: PreparedRequest, run_input: RunInput, request_id: str, *, priority: Priority = Priority.INTERACTIVE
) -> RunningRequest:
    """Submit a prepared request to the engine. Raises ContextLengthError, CapacityError or EngineDeadError."""
    (running,) = await submit_choices(prepared, [run_input], [request_id], priority=priority)
    return running


async def submit_choices(
    prepared: PreparedRequest,
    choices: Sequence[RunInput],
    names: Sequence[str],
    *,
    priority: Priority = Priority.INTERACTIVE,
) -> list[RunningRequest]:
    """Submit a prepared request once for each choice, all of them or none: their prompt is computed once.

    choices  differ in their seed alone
    names    of the choices in the log
    Raises as `submit` does.
    """
    params = [choice.params for choice in choices]
    if prepared.grammar is not None:
        params = [msgspec.structs.replace(one, grammar=prepared.grammar) for one in params]
    logs = [RequestLog(name, prepared.model, prepared.adapters, answered_by=prepared.answered_by) for name in names]
    handles = await prepared.llm.submit_all(
        prepared.prompt_ids,
        params,
        adapters=prepared.adapters,
        stop=choices[0].stop,
        priority=priority,
        reject_if_busy=choices[0].reject_if_busy,
        cache_salt=choices[0].cache_salt,
        form=choices[0].form,
    )
    num_prompt, max_tokens, notes = len(prepared.prompt_ids), params[0].max_tokens, prepared.notes
    max_tokens = prepared.llm.window - num_prompt if max_tokens is None else max_tokens
    return [
        RunningRequest(handle, log, _headers(prepared, log.request_id), choice, num_prompt, max_tokens, notes)
        for handle, log, choice in zip(handles, logs, choices, strict=True)
    ]


def _headers(prepared: PreparedRequest, request_id: str) -> dict[str, str]:
    """Of the response; see `RunningRequest`."""
    headers = {REQUEST_ID_HEADER: request_id, VERSION_HEADER: __version__, **stand_in_headers(prepared.answered_by)}
    identity = mix_identity(prepared.adapters)
    if identity is not None:
        headers[DIGEST_HEADER] = identity
    if prepared.notes:
        # The form of OpenAI's responses has no place for them.
        headers[MESSAGES_HEADER] = json.dumps(prepared.notes)[:_MAX_HEADER]
    return headers


async def _resolve_adapters(
    state: ServerState, account: str, named: Sequence[NamedAdapter], model: str
) -> tuple[ScaledAdapter, ...]:
    if not named:
        return ()
    answered_by = state.stand_ins.get(model)
    return await asyncio.to_thread(state.finetunes.resolve_mix, account, named, model, answered_by=answered_by)


def _prompt_ids(llm: AsyncLLM, run_input: RunInput) -> list[int]:
    if isinstance(run_input.prompt, list):
        return run_input.prompt
    if run_input.prompt is not None and run_input.tools is None:
        return llm.render_prompt(run_input.prompt, raw=run_input.raw)
    messages = run_input.messages if run_input.prompt is None else [{"role": "user", "content": run_input.prompt}]
    return llm.render_messages(
        with_tools(messages or [], run_input.tools) if run_input.tools else messages or [],
        add_generation_prompt=run_input.ending is PromptEnding.NEW_TURN,
        continue_final=run_input.ending is PromptEnding.OPEN_TURN,
    )
