"""From body, query string and `options` to what the model is asked: all the ways in which callers say a thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from intaglio.api.body import parse_json
from intaglio.api.schema import RunSchema
from intaglio.errors import BadInputError
from intaglio.request import SamplingParams

_FLAGS = {"true": True, "false": False}
_NULL_MEANS_ABSENT = ("prompt", "messages", "stop")  # some clients send these keys whether they use them or not
_REALS = ("temperature", "top_p", "repetition_penalty", "frequency_penalty", "presence_penalty")
_INTEGERS = ("top_k", "seed", "max_tokens")


@dataclass(frozen=True, slots=True)
class RunInput:
    """One checked request. Exactly one of prompt and messages is given."""

    prompt: str | None
    messages: list[dict[str, Any]] | None
    raw: bool
    stream: bool
    lora: str | None
    stop: tuple[str, ...]
    params: SamplingParams


def read_run_input(body: object, query: Mapping[str, str], schema: RunSchema) -> RunInput:
    """Check a request and give it one form. Raises BadInputError.

    The body wins over the query string, whose values are strings and are read by the type that the schema declares.
    An adapter may be named in the body, in `options` or in the query; two different names are refused.
    """
    if isinstance(body, dict):
        body = _merged(body, query, schema)
    schema.check(body)
    assert isinstance(body, dict)  # the schema has refused everything else
    return RunInput(
        prompt=body.get("prompt"),
        messages=body.get("messages"),
        raw=body.get("raw", False),
        stream=body.get("stream", False),
        lora=body.get("lora"),
        stop=_stop_strings(body.get("stop")),
        params=_sampling_params(body),
    )


def _merged(body: dict[str, Any], query: Mapping[str, str], schema: RunSchema) -> dict[str, Any]:
    merged = {name: value for name, value in body.items() if value is not None or name not in _NULL_MEANS_ABSENT}
    for name, field in schema.settings.items():
        if name != "lora" and name in query and name not in merged:
            merged[name] = _from_text(query[name], field["type"])
    for name in ("raw", "stream"):
        if isinstance(merged.get(name), str):
            merged[name] = _FLAGS.get(merged[name].lower(), merged[name])
    named = _adapter_names(body, query)
    if named:
        merged["lora"] = named[0]
    return merged


def _adapter_names(body: dict[str, Any], query: Mapping[str, str]) -> list[Any]:
    options = body.get("options")
    places: tuple[Mapping[str, Any], ...] = (body, options if isinstance(options, dict) else {}, query)
    named = [place["lora"] for place in places if "lora" in place]
    if any(name != named[0] for name in named):
        raise BadInputError(f"'/lora' names different adapters in body, options and query: {named}")
    return named


def _from_text(text: str, declared: str | list[str]) -> object:
    """A query parameter as a JSON value. What is none of the declared type stays text, for the schema to refuse."""
    if declared == "boolean":
        return _FLAGS.get(text.lower(), text)
    if declared in ("number", "integer"):
        try:
            value = parse_json(text)
        except BadInputError:
            return text
        return value if isinstance(value, int | float) else text
    return text


def _stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _sampling_params(body: dict[str, Any]) -> SamplingParams:
    """Fields that were not sent keep the defaults of SamplingParams, which are the schema's."""
    given: dict[str, Any] = {name: float(body[name]) for name in _REALS if name in body}
    given |= {name: int(body[name]) for name in _INTEGERS if name in body}  # JSON knows 5.0 as an integer
    return SamplingParams(**given)
