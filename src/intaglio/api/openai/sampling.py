"""The sampling fields of an OpenAI-compatible body, which are OpenAI's and vLLM's."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from intaglio.errors import BadInputError
from intaglio.request import SamplingParams

DEFAULT_MAX_TOKENS = 256
TO_WINDOW = -1  # of max_tokens and of truncate_prompt_tokens: what the window has room for

_REALS = ("temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty")
_SEEDS = 2**64  # how many the engine knows
_NO_TOP_K = (0, -1)


def sampling_params(body: dict[str, Any], logprobs: int | None, default_max_tokens: int) -> SamplingParams:
    """Fields that were not sent keep the defaults of the native route, but for `max_tokens`. Raises BadInputError."""
    given: dict[str, Any] = {name: float(body[name]) for name in _REALS if name in body}
    max_tokens = _max_tokens(body)
    given["max_tokens"] = _limit(default_max_tokens if max_tokens is None else max_tokens)
    given["min_tokens"] = int(body.get("min_tokens", 0))
    given["stop_token_ids"] = tuple(map(int, body.get("stop_token_ids", ())))
    given["ignore_stop_tokens"] = body.get("ignore_eos", False)
    if "top_k" in body and int(body["top_k"]) not in _NO_TOP_K:
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


def with_choice_seed(params: SamplingParams, number: int) -> SamplingParams:
    """The first choice has the caller's seed; each further one a seed that follows from it and its number."""
    if params.seed is None or number == 0:
        return params
    digest = hashlib.sha256(f"{params.seed}:{number}".encode()).digest()
    return msgspec.structs.replace(params, seed=int.from_bytes(digest[:8], "big"))


def _max_tokens(body: dict[str, Any]) -> int | None:
    given = [int(body[name]) for name in ("max_tokens", "max_completion_tokens") if name in body]
    if len(set(given)) > 1:
        raise BadInputError(f"max_tokens is {given[0]} and max_completion_tokens is {given[1]}; give one of them")
    return given[0] if given else None


def _limit(max_tokens: int) -> int | None:
    return None if max_tokens == TO_WINDOW else max_tokens


def _logit_bias(given: dict[str, float]) -> dict[int, float]:
    for name in given:
        # int() would take 07 and 7 for the same token, and one of the two values would be lost.
        if not (name.isascii() and name.isdecimal() and len(name) < 10 and name == str(int(name))):
            raise BadInputError(f"logit_bias has the key {name[:40]!r}, which is not a token id")
    return {int(name): float(value) for name, value in given.items()}
