"""Text and chats to token ids and back, in vLLM's form: for tools that count tokens or send them as a prompt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from intaglio.api.http.envelope import JsonResponse
from intaglio.api.http.json_body import read_json
from intaglio.api.http.query import check_names
from intaglio.api.inference.run_input import PromptEnding
from intaglio.api.model_names import find_model
from intaglio.api.openai.fields.honoured import MESSAGES
from intaglio.api.openai.input import prompt_ending
from intaglio.api.openai.responses import Detokenized, Tokenized, TokenizerInfo
from intaglio.api.openai.schema import BodyCheck
from intaglio.api.state import ServerState
from intaglio.errors import BadInputError
from intaglio.text.tools import parse_tools, with_tools

if TYPE_CHECKING:
    from intaglio.llm import AsyncLLM

_MODEL = {"type": "string", "minLength": 1}
_FLAG = {"type": "boolean"}

TOKENIZE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "model": _MODEL,
        "prompt": {"type": "string"},
        "messages": MESSAGES,
        "tools": {"type": "array", "items": {"type": "object"}},
        "tool_choice": {
            "type": ["string", "object"],
            "description": "as of chat completions: the prompt depends on it",
        },
        "add_special_tokens": _FLAG,
        "add_generation_prompt": _FLAG,
        "continue_final_message": _FLAG,
        "return_token_strs": _FLAG,
        "chat_template_kwargs": {"enum": [{}, {"enable_thinking": False}]},
        "mm_processor_kwargs": {"type": "object", "description": "without effect: a message has no images"},
    },
    "required": [],
    "additionalProperties": False,
}

DETOKENIZE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "model": _MODEL,
        "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    },
    "required": ["tokens"],
    "additionalProperties": False,
}


def tokenize_check() -> BodyCheck:
    return BodyCheck(TOKENIZE_SCHEMA, {"chat_template": "the model's own template is used"})


def detokenize_check() -> BodyCheck:
    return BodyCheck(DETOKENIZE_SCHEMA)


def tokenize_routes(state: ServerState) -> APIRouter:
    """Tokenize, detokenize, what the tokenizer is. An adapter in `model` has to exist, and has its base's tokens."""
    router = APIRouter()
    check_tokenize, check_detokenize = tokenize_check(), detokenize_check()

    @router.post("/ai/v1/tokenize", operation_id="tokenize")
    async def tokenize(request: Request, account: str) -> Response:
        body = check_tokenize.read(await read_json(request, state.settings.max_body_bytes))
        if ("prompt" in body) == ("messages" in body):
            raise BadInputError("one of prompt and messages is needed")
        llm = await _find_model(state, account, body.get("model"))
        ids = await state.run_in_text_thread(_token_ids, llm, body)
        names = [llm.tokenizer.piece_name(token_id) for token_id in ids] if body.get("return_token_strs") else UNSET
        return JsonResponse(Tokenized(len(ids), llm.window, ids, names))

    @router.post("/ai/v1/detokenize", operation_id="detokenize")
    async def detokenize(request: Request, account: str) -> Response:
        body = check_detokenize.read(await read_json(request, state.settings.max_body_bytes))
        llm = await _find_model(state, account, body.get("model"))
        ids = [int(token_id) for token_id in body["tokens"]]
        highest = max(ids, default=0)
        if highest >= llm.tokenizer.vocab_size:
            raise BadInputError(f"tokens has the token id {highest}; this model's ids are < {llm.tokenizer.vocab_size}")
        return JsonResponse(Detokenized(await state.run_in_text_thread(llm.tokenizer.decode_with_names, ids)))

    @router.get("/ai/v1/tokenizer_info", operation_id="tokenizer_info")
    async def tokenizer_info(request: Request, account: str) -> Response:
        check_names(request.query_params, "model")
        llm = await _find_model(state, account, request.query_params.get("model"))
        return JsonResponse(_info(llm))

    return router


def _info(llm: AsyncLLM) -> TokenizerInfo:
    tokenizer = llm.tokenizer
    return TokenizerInfo(
        tokenizer_class="GemmaTokenizer",
        bos_token=tokenizer.piece_name(tokenizer.bos_id),
        eos_token=tokenizer.piece_name(tokenizer.eos_id),
        pad_token=None if tokenizer.pad_id is None else tokenizer.piece_name(tokenizer.pad_id),
        add_bos_token=True,
        model_max_length=llm.window,
        chat_template=llm.chat_template,
    )


async def _find_model(state: ServerState, account: str, model: str | None) -> AsyncLLM:
    """The base that a request names; without a name the only one. Raises as a request that runs it does."""
    if model is None:
        if len(state.models) > 1:
            raise BadInputError(f"model is needed: this server has {', '.join(state.models)}")
        return next(iter(state.models.values()))
    named = await find_model(state, account, model)
    llm = state.llm(named.base)
    if named.adapter is not None:
        answered_by = state.stand_ins.get(named.base)
        await asyncio.to_thread(state.finetunes.resolve, account, named.adapter, named.base, answered_by=answered_by)
    return llm


def _token_ids(llm: AsyncLLM, body: dict[str, Any]) -> list[int]:
    """The ids that completions or chat completions make of the same input."""
    if "prompt" in body:
        add_bos = body.get("add_special_tokens", True)
        return llm.tokenizer.encode(body["prompt"], special=True, add_bos=add_bos)
    tools, ending = parse_tools(body.get("tools"), choice=body.get("tool_choice")), prompt_ending(body)
    return llm.render_messages(
        with_tools(body["messages"], tools) if tools else body["messages"],
        add_generation_prompt=ending is PromptEnding.NEW_TURN,
        continue_final=ending is PromptEnding.OPEN_TURN,
    )
