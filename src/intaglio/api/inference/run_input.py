"""Reads a request from body, query string and `options`: every way to give a setting becomes one `RunInput`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from intaglio.api.http.json_body import parse_json
from intaglio.api.http.query import check_spelling
from intaglio.api.inference.forms.structured_output import JsonMode
from intaglio.api.inference.forms.text_grammar import FORM_FIELDS, TextGrammar, read_form, refuse_beside_tools
from intaglio.api.inference.lora_field import NamedAdapter, read_lora, with_lora
from intaglio.api.inference.schema import RunSchema
from intaglio.errors import BadInputError
from intaglio.request import SamplingParams
from intaglio.text import PLAIN_TEXT, TextForm
from intaglio.text.tools import ToolUse, parse_tools

_FLAGS = {"true": True, "false": False}
# Some clients always send these keys, with null where they do not use them.
NULL_MEANS_ABSENT = (
    "prompt", "messages", "stop", "response_format", "guided_json", "tools", "functions", "tool_choice",
    "min_p", "min_tokens", "ignore_eos", "stop_token_ids", *FORM_FIELDS,
)  # fmt: skip
_REALS = ("temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty")
_INTEGERS = ("top_k", "seed", "max_tokens", "min_tokens")


@dataclass(frozen=True, slots=True)
class Truncation:
    """Which tokens of a prompt are kept.

    limit       so many; None: as many as the window has room for, beside the completion's
    from_right  the last tokens are dropped; otherwise the first ones, but for the BOS
    """

    limit: int | None
    from_right: bool = False

    def kept(self, ids: list[int], window: int, max_tokens: int | None) -> list[int]:
        """The tokens that are kept of a prompt. Raises BadInputError if none would be."""
        limit = window - (1 if max_tokens is None else max_tokens) if self.limit is None else self.limit
        if limit < 1:
            raise BadInputError(f"max_tokens {max_tokens} leaves no room for a prompt in a window of {window} tokens")
        if len(ids) <= limit:
            return ids
        return ids[:limit] if self.from_right else [ids[0], *ids[len(ids) - limit + 1 :]]


class PromptEnding(Enum):
    """How the prompt of a chat ends."""

    NEW_TURN = "with the opening of the model's turn"
    LAST_TURN = "with the end of the last turn"
    OPEN_TURN = "with the text of the last message, the assistant's, whose turn is continued"


@dataclass(frozen=True, slots=True)
class RunInput:
    """One checked request. Exactly one of prompt and messages is given.

    prompt          text, or token ids that are used as they are
    adapters        as the request names them; empty for the base model
    reject_if_busy  respond with 429 instead of waiting for other requests
    json_mode       the completion must be JSON
    tools           the completion may, or must, be tool calls; the prompt describes the tools, so it is not raw
    text_grammar    the completion must follow a regular expression, a choice or a grammar; not beside the two above
    form            what of the completion's tokens becomes text
    truncation      of a prompt that is too long; None: it is refused
    cache_salt      keys and values are shared with requests of the same salt only
    ending          of the prompt that the messages become
    """

    prompt: str | list[int] | None
    messages: list[dict[str, Any]] | None
    raw: bool
    stream: bool
    adapters: tuple[NamedAdapter, ...]
    stop: tuple[str, ...]
    params: SamplingParams
    reject_if_busy: bool = False
    json_mode: JsonMode | None = None
    tools: ToolUse | None = None
    text_grammar: TextGrammar | None = None
    form: TextForm = PLAIN_TEXT
    truncation: Truncation | None = None
    cache_salt: str | None = None
    ending: PromptEnding = PromptEnding.NEW_TURN


def read_run_input(body: object, query: Mapping[str, str], schema: RunSchema) -> RunInput:
    """Check a request and read it. Raises BadInputError.

    The body has precedence over the query string, whose values are parsed by the type that the schema declares.
    Adapters may be named in the body, in `options` or in the query, but not different ones.
    """
    if isinstance(body, dict):
        body = _merge_query(with_lora(body, query), query, schema)
    schema.check(body)
    assert isinstance(body, dict)  # the schema has refused everything else
    json_mode, text_grammar = read_form(body)
    tools = _tools(body)
    refuse_beside_tools(text_grammar, tools)
    return RunInput(
        prompt=body.get("prompt"),
        messages=body.get("messages"),
        raw=body.get("raw", False),
        stream=body.get("stream", False),
        adapters=read_lora(body.get("lora")),
        stop=stop_strings(body.get("stop")),
        params=_sampling_params(body, schema.default_max_tokens),
        reject_if_busy=rejects_if_busy(body),
        json_mode=json_mode,
        tools=tools,
        text_grammar=text_grammar,
    )


def _tools(body: Mapping[str, Any]) -> ToolUse | None:
    use = parse_tools(body.get("tools"), body.get("functions"), body.get("tool_choice"))
    if use is not None and "prompt" in body and body.get("raw"):
        raise BadInputError(
            "tools cannot be used with raw: a raw prompt is not changed, so the model would not see the tools"
        )
    return use


def rejects_if_busy(body: Mapping[str, Any]) -> bool:
    """Whether `options` ask for a 429 instead of waiting."""
    options = body.get("options")
    return isinstance(options, dict) and options.get("rejectIfBusy") in (True, "true")


def _merge_query(body: dict[str, Any], query: Mapping[str, str], schema: RunSchema) -> dict[str, Any]:
    check_spelling(query, *schema.settings, "queueRequest")
    merged = {name: value for name, value in body.items() if value is not None or name not in NULL_MEANS_ABSENT}
    for name, field in schema.settings.items():
        if name != "lora" and name in query and name not in merged:
            merged[name] = _parse_query_value(query[name], field["type"])
    for name in ("raw", "stream"):
        if isinstance(merged.get(name), str):
            merged[name] = _FLAGS.get(merged[name].lower(), merged[name])
    return merged


def _parse_query_value(text: str, declared: str | list[str]) -> object:
    """A query parameter as a value of the declared type; other text stays text, which the schema then refuses."""
    if declared == "boolean":
        return _FLAGS.get(text.lower(), text)
    if declared in ("number", "integer"):
        try:
            value = parse_json(text)
        except BadInputError:
            return text
        return value if isinstance(value, int | float) else text
    return text


def stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _sampling_params(body: dict[str, Any], default_max_tokens: int) -> SamplingParams:
    """The sampling fields; those that were not sent have the defaults of SamplingParams, which are the schema's."""
    given: dict[str, Any] = {"max_tokens": default_max_tokens}
    given |= {name: float(body[name]) for name in _REALS if name in body}
    given |= {name: int(body[name]) for name in _INTEGERS if name in body}  # to JSON Schema 5.0 is an integer
    given["stop_token_ids"] = tuple(map(int, body.get("stop_token_ids", ())))
    return SamplingParams(ignore_stop_tokens=body.get("ignore_eos", False), **given)
