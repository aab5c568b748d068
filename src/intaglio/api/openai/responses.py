"""What the OpenAI-compatible routes send: one declaration per shape, from which the response and the OpenAPI document
are made.

A field that is UNSET is left out. Fields are written in the order of their declaration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from intaglio.api.http.wire import Count
from intaglio.api.inference.results import Usage

FinishReason = Annotated[str, Meta(extra_json_schema={"enum": ["stop", "length", "tool_calls"]})]
LogProbability = Annotated[float, Meta(le=0)]


class FunctionCall(Struct, frozen=True):
    """arguments: JSON as a text."""

    name: str
    arguments: str


class ToolCallObject(Struct, frozen=True):
    id: str
    type: Literal["function"]
    function: FunctionCall


class ToolCallPiece(Struct, frozen=True):
    """A tool call in a chunk, always complete."""

    index: Count
    id: str
    type: Literal["function"]
    function: FunctionCall


class LikelyToken(Struct, frozen=True):
    token: str
    logprob: LogProbability
    bytes: Sequence[int]


class ChatToken(LikelyToken, frozen=True):
    """A token of the completion, and the likeliest in its place."""

    top_logprobs: Sequence[LikelyToken]


class ChatLogprobs(Struct, frozen=True):
    content: Sequence[ChatToken]


class TextLogprobs(Struct, frozen=True):
    """Parallel lists. The first token of an echoed prompt has no probability, as nothing stands before it."""

    tokens: Sequence[str]
    token_logprobs: Sequence[LogProbability | None]
    top_logprobs: Sequence[dict[str, LogProbability] | None]
    text_offset: Sequence[Count]

    def joined(self, after: TextLogprobs) -> TextLogprobs:
        """These tokens and those that follow them."""
        return TextLogprobs(
            [*self.tokens, *after.tokens],
            [*self.token_logprobs, *after.token_logprobs],
            [*self.top_logprobs, *after.top_logprobs],
            [*self.text_offset, *after.text_offset],
        )


class PromptToken(Struct, frozen=True):
    """A token in a place of the prompt. rank: 1 is the most probable."""

    logprob: LogProbability
    rank: Annotated[int, Meta(ge=1)]
    decoded_token: str


# For each token of the prompt the tokens in its place, by their ids: its own and the most probable. The first has none.
PromptTokens = Sequence[dict[str, PromptToken] | None]


class ChatMessage(Struct, frozen=True):
    role: Literal["assistant"]
    content: str | None
    tool_calls: Sequence[ToolCallObject] | UnsetType = UNSET


class ChatDelta(Struct, frozen=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: Sequence[ToolCallPiece] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True):
    index: Count
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatChunkChoice(Struct, frozen=True, kw_only=True):
    index: Count
    delta: ChatDelta
    logprobs: ChatLogprobs | UnsetType = UNSET
    finish_reason: FinishReason | None


class CompletionChoice(Struct, frozen=True):
    index: Count
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason
    prompt_logprobs: PromptTokens | UnsetType = UNSET


class CompletionChunkChoice(Struct, frozen=True):
    index: Count
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletion(Struct, frozen=True):
    id: str
    object: Literal["chat.completion"]
    created: Count
    model: str
    choices: Sequence[ChatChoice]
    usage: Usage
    prompt_logprobs: PromptTokens | UnsetType = UNSET


class Completion(Struct, frozen=True):
    id: str
    object: Literal["text_completion"]
    created: Count
    model: str
    choices: Sequence[CompletionChoice]
    usage: Usage


class ChatCompletionChunk(Struct, frozen=True):
    """usage is left out rather than null: some clients cannot read null."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: Count
    model: str
    choices: Sequence[ChatChunkChoice]
    usage: Usage | UnsetType = UNSET


class CompletionChunk(Struct, frozen=True):
    id: str
    object: Literal["text_completion"]
    created: Count
    model: str
    choices: Sequence[CompletionChunkChoice]
    usage: Usage | UnsetType = UNSET


class OpenAIModel(Struct, frozen=True):
    """A base, or a base with an adapter.

    root           the base: the model that answers, which may be a stand-in; the adapter: its id
    parent         the base of an adapter
    max_model_len  tokens of prompt and completion together
    """

    id: str
    object: Literal["model"]
    created: Count
    owned_by: str
    root: str
    parent: str | None
    max_model_len: Count


class OpenAIModels(Struct, frozen=True):
    object: Literal["list"]
    data: Sequence[OpenAIModel]


class Tokenized(Struct, frozen=True):
    """count: of tokens. max_model_len: as in `OpenAIModel`. token_strs: as the vocabulary writes them."""

    count: Count
    max_model_len: Count
    tokens: Sequence[Count]
    token_strs: Sequence[str] | UnsetType = UNSET


class Detokenized(Struct, frozen=True):
    prompt: str


class TokenizerInfo(Struct, frozen=True):
    """As a tokenizer_config.json has it. pad_token is null where the vocabulary has no padding token."""

    tokenizer_class: str
    bos_token: str
    eos_token: str
    pad_token: str | None
    add_bos_token: bool
    model_max_length: Count
    chat_template: str


SHAPES = (
    ChatCompletion, Completion, ChatCompletionChunk, CompletionChunk, OpenAIModel, OpenAIModels, Tokenized, Detokenized,
    TokenizerInfo,
)  # fmt: skip
