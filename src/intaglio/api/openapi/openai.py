"""The OpenAI-compatible operations."""

from __future__ import annotations

from typing import Any

from intaglio.api.http.errors import REQUEST_ID_HEADER, VERSION_HEADER
from intaglio.api.http.wire import component_schemas
from intaglio.api.openai.responses import SHAPES
from intaglio.api.openai.schema import chat_check, completions_check
from intaglio.api.openai.tokenize import detokenize_check, tokenize_check
from intaglio.api.openapi.error_groups import IN_AN_ACCOUNT, OF_A_BODY, OF_A_MODEL, OF_A_READ, OF_A_RUN, OF_AN_ADAPTER
from intaglio.api.openapi.failures import Failures
from intaglio.api.openapi.operation import EVENTS, JSON, DeclaredResponse, Operation
from intaglio.api.openapi.shapes import (
    ACCOUNT,
    TEXT,
    as_sent,
    model_in_path,
    parameter,
    ref,
)
from intaglio.api.openapi.streams import event_stream
from intaglio.errors import BadInputError, ChatError

TAG = "OpenAI-compatible"

_RUN_HEADERS = {REQUEST_ID_HEADER: "The request's id, in the log too.", VERSION_HEADER: "This server's version."}


def openai_schemas(model: str) -> dict[str, Any]:
    return {
        "ChatInput": as_sent(chat_check(), model),
        "CompletionsInput": as_sent(completions_check(), model),
        "TokenizeInput": as_sent(tokenize_check(), model),
        "DetokenizeInput": as_sent(detokenize_check(), model),
        **component_schemas(SHAPES),
        "ChatEvent": _event("ChatCompletionChunk"),
        "CompletionEvent": _event("CompletionChunk"),
    }


def _event(chunk: str) -> dict[str, Any]:
    """A chunk of a stream, or the error that ends it."""
    return {"anyOf": [ref(chunk), ref("OpenAIErrorEvent")]}


_MODEL = "`model` is a base, a base and an adapter as `<base>:<name or id>`, or an adapter's name or id alone."
_LORA = parameter("lora", "query", TEXT, "An adapter, as `lora` in the body.")


def _run(summary: str, description: str, body: str, response: str, event: str) -> Operation:
    events = event_stream("Each holds a chunk in OpenAI's form.", ref(event))
    return Operation(
        TAG, summary, description,
        {200: DeclaredResponse("The bare completion.", {JSON: ref(response), EVENTS: events}, _RUN_HEADERS)},
        parameters=(ACCOUNT, _LORA), body={JSON: ref(body)}, errors=(*IN_AN_ACCOUNT, *OF_A_RUN),
        failures=Failures.OPENAI,
    )  # fmt: skip


def _absent(summary: str, description: str) -> Operation:
    return Operation(
        TAG, summary, description, {}, parameters=(ACCOUNT,), errors=IN_AN_ACCOUNT, failures=Failures.OPENAI
    )


def openai_operations(model: str) -> dict[str, Operation]:
    """model: one for the examples."""
    return {
        "create_chat_completion": _run(
            "Chat completions", _MODEL, "ChatInput",
            "ChatCompletion", "ChatEvent",
        ),
        "create_completion": _run(
            "Completions", "The prompt stands as it is, without a template; it may be token ids.", "CompletionsInput",
            "Completion", "CompletionEvent",
        ),
        "create_embedding": _absent("No embeddings", "Always 404: the models of this server generate text."),
        "load_lora_adapter": _absent("No loading by path", "vLLM's route. Always 404; the message says what to do."),
        "unload_lora_adapter": _absent("No unloading", "vLLM's route. Always 404; the message says what to do."),
        "list_openai_models": Operation(
            TAG, "List models", "Bases, and the account's ready finetunes and the demo adapters as `<base>:<name>`.",
            {200: DeclaredResponse("The models.", {JSON: ref("OpenAIModels")})},
            parameters=(ACCOUNT,), errors=(*IN_AN_ACCOUNT, *OF_A_READ), failures=Failures.OPENAI,
        ),
        "read_openai_model": Operation(
            TAG, "Read a model", _MODEL,
            {200: DeclaredResponse("The model.", {JSON: ref("OpenAIModel")})},
            parameters=(ACCOUNT, model_in_path(model)), errors=(*IN_AN_ACCOUNT, *OF_A_MODEL, *OF_AN_ADAPTER),
            failures=Failures.OPENAI,
        ),
        "tokenize": _tokens(
            "Tokenize",
            "The ids that a completion's `prompt` or a chat's `messages` become.",
            "TokenizeInput",
            "Tokenized",
        ),
        "detokenize": _tokens("Detokenize", "The text of token ids.", "DetokenizeInput", "Detokenized"),
        "tokenizer_info": Operation(
            TAG, "About the tokenizer", "Special tokens and the chat template. Without `model`, of the only base.",
            {200: DeclaredResponse("The tokenizer.", {JSON: ref("TokenizerInfo")})},
            parameters=(ACCOUNT, parameter("model", "query", TEXT, "A base, or one of its adapters.")),
            errors=(*IN_AN_ACCOUNT, BadInputError, *OF_A_MODEL, *OF_AN_ADAPTER), failures=Failures.OPENAI,
        ),
    }  # fmt: skip


def _tokens(summary: str, description: str, body: str, response: str) -> Operation:
    return Operation(
        TAG, summary, f"{description} Without `model`, the only base.",
        {200: DeclaredResponse("The result.", {JSON: ref(response)})},
        parameters=(ACCOUNT,), body={JSON: ref(body)},
        errors=(*IN_AN_ACCOUNT, *OF_A_BODY, *OF_A_MODEL, *OF_AN_ADAPTER, ChatError), failures=Failures.OPENAI,
    )  # fmt: skip
