"""The JSON schema of a body of the Responses API. A field that is not in it is refused by name, as OpenAI does."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from intaglio.api.inference.lora_field import LORA_SCHEMA
from intaglio.api.openai.fields import Route, fields_of
from intaglio.api.openai.schema import CHAT_SCHEMA, BodyCheck

_CHAT_FIELDS: dict[str, Any] = CHAT_SCHEMA["properties"]
_WITHOUT_EFFECT = "without effect"
# Of vLLM's ResponsesRequest, besides OpenAI's fields: with the meaning that they have for chat completions.
VLLM_FIELDS = (
    "top_k", "seed", "stop", "include_stop_str_in_output", "ignore_eos", "skip_special_tokens", "logit_bias",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "structured_outputs", "cache_salt",
)  # fmt: skip
_VLLM_WITHOUT_EFFECT = ("session_id", "media_io_kwargs", "mm_processor_kwargs")
LOGPROBS = "message.output_text.logprobs"  # in `include`: the output has them
_ITEM = {
    "type": "object",
    "properties": {"type": {"type": ["string", "null"]}, "role": {"type": "string"}},
}
_FORMAT = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": ["text", "json_object", "json_schema"]},
        "schema": {"type": "object"},
    },
    "required": ["type"],
}
_TOOL = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": ["function"]},
        "name": {"type": "string", "minLength": 1},
        "description": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"]},
        "strict": {"type": ["boolean", "null"]},
    },
    "required": ["type", "name"],
}

RESPONSES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "minLength": 1},
        "input": {"type": ["string", "array"], "minItems": 1, "items": _ITEM},
        "instructions": {"type": "string"},
        "previous_response_id": {"type": "string", "minLength": 1},
        "store": {"type": "boolean", "default": True},
        "max_output_tokens": {"type": "integer", "minimum": 1},
        **{name: _CHAT_FIELDS[name] for name in ("temperature", "top_p", "stream", *VLLM_FIELDS)},
        **{name: _CHAT_FIELDS[name] for name in _VLLM_WITHOUT_EFFECT},
        "tools": {"type": "array", "items": _TOOL},
        "tool_choice": _CHAT_FIELDS["tool_choice"],
        "parallel_tool_calls": _CHAT_FIELDS["parallel_tool_calls"],
        "text": {
            "type": "object",
            "properties": {"format": _FORMAT, "verbosity": {"enum": ["medium", None]}},
            "additionalProperties": False,
        },
        "metadata": {
            "type": "object", "maxProperties": 16,
            "additionalProperties": {"type": "string", "maxLength": 512},
        },
        "truncation": {"type": "string", "enum": ["disabled"]},
        "background": {"enum": [False]},
        "top_logprobs": _CHAT_FIELDS["top_logprobs"],
        "include": {"type": "array", "items": {"type": "string", "enum": [LOGPROBS]}},
        "reasoning": {
            "type": "object",
            "properties": {"effort": {"enum": ["none", None]}, "summary": {"enum": [None]}},
            "additionalProperties": False,
        },
        "service_tier": {"type": "string", "enum": ["auto", "default"], "description": _WITHOUT_EFFECT},
        "stream_options": {"type": "object", "description": _WITHOUT_EFFECT},
        "user": {"type": "string", "description": _WITHOUT_EFFECT},
        "safety_identifier": {"type": "string", "description": _WITHOUT_EFFECT},
        "prompt_cache_key": {"type": "string", "description": f"{_WITHOUT_EFFECT}: prompts are always cached"},
        "prompt_cache_options": {"type": "object", "description": f"{_WITHOUT_EFFECT}: prompts are always cached"},
        "prompt_cache_retention": {"type": "string", "description": _WITHOUT_EFFECT},
        "max_tool_calls": {"type": "integer", "description": f"{_WITHOUT_EFFECT}: it is of tools that OpenAI runs"},
        "lora": LORA_SCHEMA,
        "options": {"type": "object"},
    },
    "required": ["model", "input"],
    "additionalProperties": False,
}  # fmt: skip

_REFUSED = MappingProxyType({
    "conversation": "send 'previous_response_id', or the earlier items in 'input'",
    "prompt": "this server stores no prompts; send the text in 'instructions' and 'input'",
    "context_management": "this server does not shorten conversations",
    "access_programs": "this server has no such programs; leave it out",
    "background_options": "responses are not made in the background; leave it out",
    "image": "this server answers in text; leave it out",
    "moderation": "this server judges no texts; leave it out",
    "max_tokens": "send it as 'max_output_tokens'",
    "messages": "send them as 'input'",
    "response_format": "send it as 'text.format'",
    "max_completion_tokens": "send it as 'max_output_tokens'",
    "logprobs": "send 'top_logprobs', or \"message.output_text.logprobs\" in 'include'",
    "reasoning_effort": "these models write no reasoning that could be longer or shorter; leave it out",
    "previous_response": "send 'previous_response_id', or the earlier items in 'input'",
    "previous_input_messages": "send the earlier items in 'input'",
    "enable_response_messages": "the prompt is not sent back; /tokenize lists its tokens",
})  # fmt: skip


def responses_check() -> BodyCheck:
    """The check for a response."""
    return BodyCheck(RESPONSES_SCHEMA, _REFUSED, others=fields_of(Route.CHAT))
