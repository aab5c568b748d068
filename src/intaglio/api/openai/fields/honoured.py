"""The fields that do here what they say, with the schemas of their values."""

from __future__ import annotations

from typing import Any

from intaglio.api.inference.forms.text_grammar import FORM_FIELDS
from intaglio.api.inference.lora_field import LORA_SCHEMA
from intaglio.api.inference.schema import CONTENT_BY_ROLE, STOP
from intaglio.api.openai.fields.field import Field, Route, Treatment
from intaglio.request import MAX_LOGPROBS, MAX_STOP_TOKENS

MAX_CHOICES = 128  # sequences of one request: prompts times n
MAX_SALT = 1_024  # characters, as at vLLM

_FLAG = {"type": "boolean"}
_ID = {"type": "integer", "minimum": 0}
_LENGTH = {"type": "integer", "minimum": -1}
_FLAG_OR_NULL = {"type": ["boolean", "null"]}

MESSAGES: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {"role": {"type": "string"}},
        **CONTENT_BY_ROLE,
        "required": ["role"],
    },
}
_PROMPT = {
    "type": ["string", "array"],
    "minLength": 1,
    "minItems": 1,
    "items": {"type": ["string", "integer", "array"], "minLength": 1, "minItems": 1, "minimum": 0, "items": _ID},
}
_STREAM_OPTIONS = {
    "type": "object",
    "properties": {
        "include_usage": _FLAG_OR_NULL,
        "continuous_usage_stats": _FLAG_OR_NULL,
        "include_obfuscation": _FLAG_OR_NULL,
    },
    "additionalProperties": False,
}

_BOTH = frozenset(Route)
_ONLY_CHAT = frozenset({Route.CHAT})
_ONLY_COMPLETIONS = frozenset({Route.COMPLETIONS})


def _field(name: str, schema: dict[str, Any], note: str, routes: frozenset[Route] = _BOTH) -> Field:
    return Field(name, routes, Treatment.HONOURED, note, schema)


HONOURED: tuple[Field, ...] = (
    _field("model", {"type": "string", "minLength": 1}, "a base, or an adapter"),
    _field("messages", MESSAGES, "the chat", _ONLY_CHAT),
    _field("prompt", _PROMPT, "texts, or token ids", _ONLY_COMPLETIONS),
    _field("lora", LORA_SCHEMA, "adapters; this server's own"),
    _field("options", {}, "`rejectIfBusy`, and what a Worker sends"),
    _field("max_tokens", _LENGTH, "-1 or null: as many as the window has room for"),
    _field("max_completion_tokens", _LENGTH, "another name of `max_tokens`"),
    _field("min_tokens", {"type": "integer", "minimum": 0},
           "before so many tokens no stop token comes and no stop string is looked for; a complete grammar ends "
           "the completion all the same"),
    _field("temperature", {"type": "number", "minimum": 0, "maximum": 5}, "0 takes the best token"),
    _field("top_p", {"type": "number", "minimum": 0, "maximum": 2}, "from 1 on it is off"),
    _field("top_k", {"type": "integer", "minimum": -1}, "0 and -1 are off"),
    _field("min_p", {"type": "number", "minimum": 0, "maximum": 1},
           "drops tokens below this share of the best one's probability; after temperature, before `top_p`"),
    _field("seed", {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, "with it a request repeats"),
    _field("frequency_penalty", {"type": "number", "minimum": -2, "maximum": 2}, "per occurrence in the completion"),
    _field("presence_penalty", {"type": "number", "minimum": -2, "maximum": 2}, "for tokens in the completion"),
    _field("repetition_penalty", {"type": "number", "minimum": 0, "maximum": 2}, "for tokens of prompt and completion"),
    _field("logit_bias", {"type": "object",
                          "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
           "added to the logits of token ids"),
    _field("stop", STOP, "texts that end the completion"),
    _field("stop_token_ids", {"type": "array", "maxItems": MAX_STOP_TOKENS, "items": _ID},
           "tokens that end the completion, as the model's own do"),
    _field("include_stop_str_in_output", _FLAG, "the stop string, or the text of the stop token, is kept"),
    _field("ignore_eos", _FLAG, "the model's own stop tokens do not end the completion; a grammar still ends by them"),
    _field("skip_special_tokens", _FLAG, "false: control tokens are written by their names"),
    _field("n", {"type": "integer", "minimum": 1, "maximum": MAX_CHOICES}, "completions of each prompt"),
    _field("stream", _FLAG, "server-sent events"),
    _field("stream_options", _STREAM_OPTIONS,
           "`include_usage`, and with it `continuous_usage_stats`: usage so far in every chunk"),
    _field("logprobs", _FLAG, "log-probabilities of the tokens", _ONLY_CHAT),
    _field("top_logprobs", {"type": "integer", "minimum": 0, "maximum": MAX_LOGPROBS}, "alternatives of each",
           _ONLY_CHAT),
    _field("logprobs", {"type": "integer", "minimum": 0, "maximum": MAX_LOGPROBS}, "log-probabilities of the tokens",
           _ONLY_COMPLETIONS),
    _field("prompt_logprobs", {"type": "integer", "minimum": 0, "maximum": MAX_LOGPROBS}, "those of the prompt's"),
    _field("return_tokens_as_token_ids", _FLAG, "tokens in `logprobs` are written as `token_id:` and their id"),
    _field("echo", _FLAG, "the prompt in front of the completion; a chat has false only"),
    _field("best_of", {"type": "integer", "minimum": 1}, "must equal `n`", _ONLY_COMPLETIONS),
    _field("response_format", {"type": "object"}, "text, `json_object` or `json_schema`"),
    _field("structured_outputs", FORM_FIELDS["structured_outputs"],
           "one of `json`, `json_object`, `regex`, `choice` and `grammar` (Lark or GBNF)"),
    _field("guided_json", {"type": ["object", "string"]}, "`structured_outputs.json`"),
    _field("guided_regex", FORM_FIELDS["guided_regex"], "`structured_outputs.regex`"),
    _field("guided_choice", FORM_FIELDS["guided_choice"], "`structured_outputs.choice`"),
    _field("guided_grammar", FORM_FIELDS["guided_grammar"], "`structured_outputs.grammar`"),
    _field("tools", {"type": "array", "items": {"type": "object"}}, "functions that may be called", _ONLY_CHAT),
    _field("tool_choice", {"type": ["string", "object"]}, "`auto`, `none`, `required` or a function", _ONLY_CHAT),
    _field("parallel_tool_calls", _FLAG, "false: one call at most", _ONLY_CHAT),
    _field("continue_final_message", _FLAG, "the last message, the assistant's, is continued", _ONLY_CHAT),
    _field("add_generation_prompt", _FLAG, "false: the prompt ends with the last turn", _ONLY_CHAT),
    _field("truncate_prompt_tokens", _LENGTH,
           "so many tokens of the prompt are kept, its BOS among them; -1: what fits in front of `max_tokens`"),
    _field("truncation_side", {"type": "string", "enum": ["left", "right"]},
           "the side from which `truncate_prompt_tokens` drops tokens: left, unless it says right"),
    _field("cache_salt", {"type": "string", "minLength": 1, "maxLength": MAX_SALT},
           "cached prompts are shared with requests of the same salt only"),
)  # fmt: skip
