"""From a checked request to a running generation and its answer: what every route that runs a model shares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from intaglio.api.http.disconnects import see_through
from intaglio.api.http.envelope import success
from intaglio.api.http.errors import REQUEST_ID_HEADER, VERSION_HEADER
from intaglio.api.inference.lora_field import NamedAdapter
from intaglio.api.inference.run_input import RunInput
from intaglio.api.inference.run_log import RunRecord
from intaglio.api.inference.structured_output import answer_grammar, parse_json_answer, read_tool_calls
from intaglio.api.state import ServerState
from intaglio.request import FinishReason, Priority, ScaledAdapter, mix_identity
from intaglio.text.tools import ToolCall, with_tools
from intaglio.version import __version__

if TYPE_CHECKING:
    from intaglio.llm import AsyncLLM, RequestHandle

DIGEST_HEADER = "intaglio-adapter-digest"
TOOL_CALLS = "tool_calls"  # the finish reason of an answer that is calls
CLIENT_CLOSED_REQUEST = 499  # nobody reads it; access logs know it


@dataclass(frozen=True, slots=True)
class Run:
    """A request that the engine has taken. Whoever holds it ends it: `generation.abort` and `record.close`, once.

    headers  of the answer: request id, engine version, the identity of its adapters
    """

    generation: RequestHandle
    record: RunRecord
    headers: dict[str, str]
    asked: RunInput

    def tool_calls(self, text: str) -> list[ToolCall]:
        """The calls that the whole answer consists of, if it does. Raises JsonAnswerError for one without an end."""
        return read_tool_calls(text, self.asked.tools, *self.ending)

    @property
    def ending(self) -> tuple[FinishReason, int]:
        """Why the answer ended, and how long it could have been. Known after its last delta."""
        return self.record.finish_reason or FinishReason.ERROR, self.asked.params.max_tokens


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is ready to be handed to the engine, once or several times.

    adapters  none is the base model
    grammar   of the answers that are asked for; None where any text will do
    """

    llm: AsyncLLM
    model: str
    adapters: tuple[ScaledAdapter, ...]
    prompt_ids: list[int]
    grammar: str | None


async def start_run(
    state: ServerState,
    account: str,
    model: str,
    asked: RunInput,
    request_id: str,
    *,
    priority: Priority = Priority.INTERACTIVE,
) -> Run:
    """Find model and adapters, make token ids of the prompt, hand all to the engine.

    Raises RequestError for what the caller can mend, CapacityError, or EngineDeadError; nothing runs then.
    """
    return await submit(await prepare(state, account, model, asked), asked, request_id, priority=priority)


async def prepare(state: ServerState, account: str, model: str, asked: RunInput) -> Prepared:
    """Find the model and adapters, make token ids of the prompt and a grammar of the answer's form.

    Raises RequestError for what the caller can mend.
    """
    llm = state.llm(model)
    adapters = await _resolve(state, account, asked.adapters, model)
    grammar = None
    if asked.json_mode or asked.tools:
        async with state.grammar_slots:
            grammar = await state.in_text_thread(answer_grammar, asked.json_mode, asked.tools)
    prompt_ids = await state.in_text_thread(_render, llm, asked)  # long prompts take a while to tokenize
    return Prepared(llm, model, adapters, prompt_ids, grammar)


async def submit(
    prepared: Prepared, asked: RunInput, request_id: str, *, priority: Priority = Priority.INTERACTIVE
) -> Run:
    """Hand a prepared request to the engine. Raises ContextLengthError, CapacityError or EngineDeadError."""
    params = asked.params
    if prepared.grammar is not None:
        params = msgspec.structs.replace(params, grammar=prepared.grammar)
    record = RunRecord(request_id, prepared.model, prepared.adapters)
    generation = await prepared.llm.submit(
        prepared.prompt_ids,
        params,
        adapters=prepared.adapters,
        stop=asked.stop,
        priority=priority,
        reject_if_busy=asked.reject_if_busy,
    )
    headers = {REQUEST_ID_HEADER: request_id, VERSION_HEADER: __version__}
    identity = mix_identity(prepared.adapters)
    if identity is not None:
        headers[DIGEST_HEADER] = identity
    return Run(generation, record, headers, asked)


async def collect_text(run: Run) -> str:
    """The whole answer. Raises EngineError if the generation fails. Usage and reason are in `run.record` then."""
    pieces = []
    async for delta in run.generation:
        run.record.note(delta)
        pieces.append(delta.text)
    return "".join(pieces)


def nobody_left() -> Response:
    """The answer to a client that went away."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def end_run(run: Run, failed: BaseException | None) -> None:
    """Free the sequence if it still runs, and write the log line."""
    await run.generation.abort()  # harmless at the end
    run.record.close(failed)


async def plain_answer(request: Request, run: Run, answer: Callable[..., Response] = success) -> Response:
    """The native answer that is not a stream. A client that goes away ends the run.

    answer  puts the result into its wire form: the envelope, or JsonAnswer for callers who want it bare
    """

    async def whole() -> Response:
        return answer(native_result(await collect_text(run), run), headers=run.headers)

    return await see_through(request.receive, whole(), lambda failed: end_run(run, failed)) or nobody_left()


def native_result(text: str, run: Run) -> dict[str, Any]:
    """`result` of the native route: text, calls of tools, or in JSON mode the parsed answer.

    Raises JsonAnswerError if a call or JSON has no end.
    """
    end = run.record.end_chunk()
    calls = run.tool_calls(text)
    if calls:
        return {"response": "", "tool_calls": native_calls(calls), **end, "finish_reason": TOOL_CALLS}
    if run.asked.json_mode is not None:
        return {"response": parse_json_answer(text, *run.ending), **end}
    return {"response": text, **end}


def native_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Calls as the native route writes them: arguments are an object, not a text."""
    return [{"name": call.name, "arguments": call.arguments} for call in calls]


async def _resolve(
    state: ServerState, account: str, named: Sequence[NamedAdapter], model: str
) -> tuple[ScaledAdapter, ...]:
    if not named:
        return ()
    return await asyncio.to_thread(state.adapters.resolve_mix, account, named, model)


def _render(llm: AsyncLLM, asked: RunInput) -> list[int]:
    if isinstance(asked.prompt, list):
        return asked.prompt
    if asked.prompt is not None and asked.tools is None:
        return llm.render_prompt(asked.prompt, raw=asked.raw)
    messages = asked.messages if asked.prompt is None else [{"role": "user", "content": asked.prompt}]
    return llm.render_messages(with_tools(messages or [], asked.tools) if asked.tools else messages or [])
