"""From the body of an OpenAI-compatible request to what the model is asked, once per prompt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from intaglio.api.inference.lora_field import NamedAdapter, check_same_adapter, read_lora
from intaglio.api.inference.run_input import RunInput, rejects_if_busy, stop_strings
from intaglio.api.inference.structured_output import read_json_mode
from intaglio.api.model_names import NamedModel
from intaglio.api.openai.schema import MAX_CHOICES
from intaglio.errors import BadInputError
from intaglio.request import SamplingParams
from intaglio.text.tools import parse_tools

_REALS = ("temperature", "top_p", "repetition_penalty", "frequency_penalty", "presence_penalty")
_SEEDS = 2**64  # how many the engine knows


@dataclass(frozen=True, slots=True)
class OpenAIInput:
    """One checked request: every prompt is answered n times.

    model          as the caller wrote it, which the answer repeats
    base           the base model alone
    include_usage  a stream ends with a chunk that has usage and no choices
    echo           the prompt's text stands in front of each answer
    prompt_logprobs  alternatives per token of the prompt in vLLM's field of that name; None where it is not wanted
    """

    model: str
    base: str
    prompts: tuple[RunInput, ...]
    n: int
    stream: bool
    include_usage: bool
    echo: bool = False
    prompt_logprobs: int | None = None

    @property
    def num_choices(self) -> int:
        return self.n * len(self.prompts)

    @property
    def with_logprobs(self) -> bool:
        return self.prompts[0].params.logprobs is not None

    def choices(self, prompt: RunInput) -> list[RunInput]:
        """The n sequences of one prompt, which differ in their seed only."""
        return [replace(prompt, params=with_choice_seed(prompt.params, number)) for number in range(self.n)]


def read_chat(body: dict[str, Any], named: NamedModel) -> OpenAIInput:
    """A body of chat completions as its check gives it. named: what its model names. Raises BadInputError."""
    modalities = body.get("modalities", ["text"])
    if modalities != ["text"]:
        raise BadInputError(f"'/modalities' is {modalities}; this server answers in text: [\"text\"]")
    if body.get("echo"):
        raise BadInputError("'/echo' is for completions: a chat answers with the new message alone")
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise BadInputError("'/top_logprobs' needs '/logprobs' to be true")
    logprobs = body.get("top_logprobs", 0) if body.get("logprobs") else None
    messages = [_message(one) for one in body["messages"]]
    parallel = body.get("parallel_tool_calls", True)
    tools = parse_tools(body.get("tools"), choice=body.get("tool_choice"), parallel=parallel)
    return _joined(body, named, [replace(_run_input(body, logprobs), messages=messages, tools=tools)])


def read_completions(body: dict[str, Any], named: NamedModel) -> OpenAIInput:
    """A body of completions as its check gives it. named: what its model names. Raises BadInputError."""
    n = int(body.get("n", 1))
    if body.get("best_of", n) != n:
        raise BadInputError(f"'/best_of' is {body['best_of']} and '/n' is {n}; every answer that is made is sent")
    if body.get("suffix"):
        raise BadInputError("'/suffix' is not supported: these models do not fill in text between two others")
    prompts = _prompts(body["prompt"])
    if n * len(prompts) > MAX_CHOICES:
        raise BadInputError(
            f"{len(prompts)} in '/prompt' times '/n' {n} are {n * len(prompts)} answers, which must be <= {MAX_CHOICES}"
        )
    run_input = _run_input(body, body.get("logprobs"))
    joined = _joined(body, named, [replace(run_input, prompt=one, raw=True) for one in prompts])
    return replace(joined, echo=body.get("echo", False))


def with_choice_seed(params: SamplingParams, number: int) -> SamplingParams:
    """The first choice has the caller's seed; each further one a seed that follows from it and its number."""
    if params.seed is None or number == 0:
        return params
    digest = hashlib.sha256(f"{params.seed}:{number}".encode()).digest()
    return msgspec.structs.replace(params, seed=int.from_bytes(digest[:8], "big"))


def _joined(body: dict[str, Any], named: NamedModel, prompts: list[RunInput]) -> OpenAIInput:
    adapters = _adapters(body, named)
    if body.get("stream") and "prompt_logprobs" in body:
        raise BadInputError("'/prompt_logprobs' does not go with '/stream': streams have no field for it")
    return OpenAIInput(
        model=body["model"],
        base=named.base,
        prompts=tuple(replace(one, adapters=adapters) for one in prompts),
        n=int(body.get("n", 1)),
        stream=body.get("stream", False),
        include_usage=bool(body.get("stream_options", {}).get("include_usage")),
        prompt_logprobs=int(body["prompt_logprobs"]) if "prompt_logprobs" in body else None,
    )


def _adapters(body: dict[str, Any], named: NamedModel) -> tuple[NamedAdapter, ...]:
    if named.adapter is not None:
        check_same_adapter(named.adapter, [body["lora"]] if "lora" in body else [])
    return read_lora(body.get("lora", named.adapter))


def _run_input(body: dict[str, Any], logprobs: int | None) -> RunInput:
    """What all prompts of the request have in common."""
    return RunInput(
        prompt=None,
        messages=None,
        raw=False,
        stream=body.get("stream", False),
        adapters=(),
        stop=stop_strings(body.get("stop")),
        params=_sampling_params(body, logprobs),
        reject_if_busy=rejects_if_busy(body),
        json_mode=read_json_mode(body.get("response_format"), body.get("guided_json")),
    )


def _sampling_params(body: dict[str, Any], logprobs: int | None) -> SamplingParams:
    """Fields that were not sent keep the defaults of the native route."""
    given: dict[str, Any] = {name: float(body[name]) for name in _REALS if name in body}
    max_tokens = _max_tokens(body)
    if max_tokens is not None:
        given["max_tokens"] = max_tokens
    if "top_k" in body:
        given["top_k"] = int(body["top_k"])
    if "seed" in body:
        given["seed"] = int(body["seed"]) % _SEEDS  # OpenAI's seeds may be negative
    if logprobs is not None:
        given["logprobs"] = int(logprobs)
    of_prompt = [int(body["prompt_logprobs"])] if "prompt_logprobs" in body else []
    if body.get("echo") and logprobs is not None:
        of_prompt.append(int(logprobs))
    if of_prompt:
        given["prompt_logprobs"] = max(of_prompt)
    return SamplingParams(logit_bias=_logit_bias(body.get("logit_bias", {})), **given)


def _max_tokens(body: dict[str, Any]) -> int | None:
    given = [int(body[name]) for name in ("max_tokens", "max_completion_tokens") if name in body]
    if len(set(given)) > 1:
        raise BadInputError(f"'/max_tokens' is {given[0]} and '/max_completion_tokens' is {given[1]}; give one of them")
    return given[0] if given else None


def _logit_bias(given: dict[str, float]) -> dict[int, float]:
    for name in given:
        if not (name.isascii() and name.isdecimal() and len(name) < 10):
            raise BadInputError(f"'/logit_bias' has the key {name[:40]!r}, which is not a token id")
    return {int(name): float(value) for name, value in given.items()}


def _prompts(prompt: str | list[Any]) -> list[str | list[int]]:
    """A text, several texts, token ids, or several lists of token ids: as a list of prompts."""
    if isinstance(prompt, str):
        return [prompt]
    types = set(map(type, prompt))  # there may be a million token ids
    kinds = {"string" if one is str else "array" if one is list else "integer" for one in types}
    if len(kinds) > 1:
        raise BadInputError(f"'/prompt' mixes {' and '.join(sorted(kinds))}; one kind is needed")
    if kinds == {"integer"}:
        return [list(map(int, prompt))]
    return [list(map(int, one)) if isinstance(one, list) else one for one in prompt]


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """`developer` is OpenAI's newer name of `system`."""
    return {**message, "role": "system"} if message["role"] == "developer" else message
