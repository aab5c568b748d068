"""From the body of an OpenAI-compatible request to what the model is asked, once per prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from intaglio.api.inference.forms.text_grammar import read_form, refuse_beside_tools
from intaglio.api.inference.lora_field import NamedAdapter, check_same_adapter, read_lora
from intaglio.api.inference.run_input import PromptEnding, RunInput, Truncation, rejects_if_busy, stop_strings
from intaglio.api.model_names import NamedModel
from intaglio.api.openai.fields.honoured import MAX_CHOICES
from intaglio.api.openai.sampling import DEFAULT_MAX_TOKENS, TO_WINDOW, sampling_params, with_choice_seed
from intaglio.errors import BadInputError
from intaglio.text import TextForm
from intaglio.text.tools import parse_tools
from intaglio.wording import shown


@dataclass(frozen=True, slots=True)
class OpenAIInput:
    """One checked request: every prompt is answered n times.

    model          as the caller wrote it, which the answer repeats
    base           the base model alone
    include_usage  a stream ends with a chunk that has usage and no choices
    usage_in_each  so do all of its chunks: the usage so far
    echo           the prompt's text stands in front of each answer
    prompt_logprobs  alternatives per token of the prompt in vLLM's field of that name; None where it is not wanted
    """

    model: str
    base: str
    prompts: tuple[RunInput, ...]
    n: int
    stream: bool
    include_usage: bool
    usage_in_each: bool = False
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


def read_chat(
    body: dict[str, Any],
    named: NamedModel,
    default_max_tokens: int = DEFAULT_MAX_TOKENS,
    format_field: str = "response_format",
) -> OpenAIInput:
    """A body of chat completions as its check gives it. named: what its model names. Raises BadInputError.

    default_max_tokens  for a body without: -1 is as many as the window has room for
    format_field        the caller's name of `response_format`, for messages
    """
    if body.get("echo"):
        raise BadInputError("echo is for completions: a chat answers with the new message alone")
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise BadInputError("top_logprobs needs logprobs to be true")
    logprobs = body.get("top_logprobs", 0) if body.get("logprobs") else None
    messages = [_message(one) for one in body["messages"]]
    parallel = body.get("parallel_tool_calls", True)
    tools = parse_tools(body.get("tools"), choice=body.get("tool_choice"), parallel=parallel)
    run_input = _run_input(body, logprobs, default_max_tokens, format_field)
    refuse_beside_tools(run_input.text_grammar, tools)
    return _joined(body, named, [replace(run_input, messages=messages, tools=tools, ending=prompt_ending(body))])


def prompt_ending(body: dict[str, Any]) -> PromptEnding:
    """What a body with `messages` asks for, in vLLM's fields. Raises BadInputError for what contradicts itself."""
    if body.get("continue_final_message"):
        if body.get("add_generation_prompt"):
            raise BadInputError(
                "continue_final_message and add_generation_prompt are both true: the last message is continued, "
                "or a new one is begun"
            )
        last, role = len(body["messages"]) - 1, body["messages"][-1]["role"]
        if role != "assistant":
            raise BadInputError(
                f"continue_final_message is true, but messages[{last}].role is {shown(role)}; only a message of "
                "the assistant can be continued"
            )
        return PromptEnding.OPEN_TURN
    return PromptEnding.NEW_TURN if body.get("add_generation_prompt", True) else PromptEnding.LAST_TURN


def read_completions(
    body: dict[str, Any], named: NamedModel, default_max_tokens: int = DEFAULT_MAX_TOKENS
) -> OpenAIInput:
    """A body of completions as its check gives it, otherwise as `read_chat`. Raises BadInputError."""
    n = int(body.get("n", 1))
    if body.get("best_of", n) != n:
        raise BadInputError(f"best_of is {body['best_of']} and n is {n}; every answer that is made is sent")
    prompts = _prompts(body["prompt"])
    if n * len(prompts) > MAX_CHOICES:
        raise BadInputError(
            f"{len(prompts)} in prompt times n {n} are {n * len(prompts)} answers, which must be <= {MAX_CHOICES}"
        )
    run_input = _run_input(body, body.get("logprobs"), default_max_tokens)
    joined = _joined(body, named, [replace(run_input, prompt=one, raw=True) for one in prompts])
    return replace(joined, echo=body.get("echo", False))


def _joined(body: dict[str, Any], named: NamedModel, prompts: list[RunInput]) -> OpenAIInput:
    adapters = _adapters(body, named)
    options = body.get("stream_options", {})
    include_usage, continuous = bool(options.get("include_usage")), bool(options.get("continuous_usage_stats"))
    if continuous and not include_usage:
        raise BadInputError("stream_options.continuous_usage_stats needs stream_options.include_usage to be true")
    if body.get("stream") and "prompt_logprobs" in body:
        raise BadInputError("prompt_logprobs does not go with stream: streams have no field for it")
    return OpenAIInput(
        model=body["model"],
        base=named.base,
        prompts=tuple(replace(one, adapters=adapters) for one in prompts),
        n=int(body.get("n", 1)),
        stream=body.get("stream", False),
        include_usage=include_usage,
        usage_in_each=continuous,
        prompt_logprobs=int(body["prompt_logprobs"]) if "prompt_logprobs" in body else None,
    )


def _adapters(body: dict[str, Any], named: NamedModel) -> tuple[NamedAdapter, ...]:
    if named.adapter is not None:
        check_same_adapter(named.adapter, [body["lora"]] if "lora" in body else [])
    return read_lora(body.get("lora", named.adapter))


def _run_input(
    body: dict[str, Any], logprobs: int | None, default_max_tokens: int, format_field: str = "response_format"
) -> RunInput:
    """What all prompts of the request have in common."""
    json_mode, text_grammar = read_form(body, format_field)
    return RunInput(
        prompt=None,
        messages=None,
        raw=False,
        stream=body.get("stream", False),
        adapters=(),
        stop=stop_strings(body.get("stop")),
        params=sampling_params(body, logprobs, default_max_tokens),
        reject_if_busy=rejects_if_busy(body),
        json_mode=json_mode,
        text_grammar=text_grammar,
        form=_text_form(body),
        truncation=_truncation(body),
        cache_salt=body.get("cache_salt"),
    )


def _text_form(body: dict[str, Any]) -> TextForm:
    return TextForm(
        includes_stop=body.get("include_stop_str_in_output", False),
        names_controls=not body.get("skip_special_tokens", True),
        tokens_as_ids=body.get("return_tokens_as_token_ids", False),
    )


def _truncation(body: dict[str, Any]) -> Truncation | None:
    if "truncate_prompt_tokens" not in body:
        return None
    limit = int(body["truncate_prompt_tokens"])
    if limit == 0:
        raise BadInputError("truncate_prompt_tokens is 0; from 1 on, or -1 for what the window has room for")
    return Truncation(None if limit == TO_WINDOW else limit, from_right=body.get("truncation_side") == "right")


def _prompts(prompt: str | list[Any]) -> list[str | list[int]]:
    """A text, several texts, token ids, or several lists of token ids: as a list of prompts."""
    if isinstance(prompt, str):
        return [prompt]
    types = set(map(type, prompt))  # there may be a million token ids
    kinds = {"string" if one is str else "array" if one is list else "integer" for one in types}
    if len(kinds) > 1:
        raise BadInputError(f"prompt mixes {' and '.join(sorted(kinds))}; one kind is needed")
    if kinds == {"integer"}:
        return [list(map(int, prompt))]
    return [list(map(int, one)) if isinstance(one, list) else one for one in prompt]


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """`developer` is OpenAI's newer name of `system`."""
    return {**message, "role": "system"} if message["role"] == "developer" else message
