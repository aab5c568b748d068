"""What the engine gets and returns: token ids, adapter digests, sampling parameters, and the sampled tokens.

The engine never sees text, names or HTTP. These types are msgspec structs, so that they can be sent over the engine's
socket.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum, StrEnum
from itertools import pairwise
from numbers import Real
from typing import Any

import msgspec

from intaglio.errors import BadInputError

MAX_LOGPROBS = 20  # alternatives per token, as in OpenAI's API
MAX_LOGIT_BIAS = 1024  # entries in one request
MAX_STOP_TOKENS = 128  # in one request
MAX_ADAPTERS = 8  # in one request
MAX_ADAPTER_SCALE = 10.0  # and -10.0

_MAX_BIAS = 100


class FinishReason(StrEnum):
    """Why a request ended. Every accepted request ends with exactly one of these."""

    STOP = "stop"  # a stop token of the model, or a stop string of the caller
    LENGTH = "length"  # max_tokens reached
    ABORT = "abort"  # the caller went away or asked for it
    ERROR = "error"  # the engine could not go on


class Priority(IntEnum):
    """The class of a request. Interactive requests are never delayed by batch requests."""

    INTERACTIVE = 0
    BATCH = 1


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is sampled. Applied in the order of the fields below; all arithmetic is float32.

    grammar             tokens outside this grammar are never sampled: Lark text as `intaglio.grammar` makes and
                        checks it. None is off. The completion ends (STOP) where the grammar allows nothing more, and
                        may end by a stop token of the model wherever the grammar may end, and nowhere else.
    logit_bias          added to the logits of these token ids: -100 to 100, at most MAX_LOGIT_BIAS of them.
    repetition_penalty  logits of tokens seen in prompt or output: divided if > 0, multiplied otherwise. 1 and
                        0 are off.
    frequency_penalty   subtracted once per occurrence in the output so far.
    presence_penalty    subtracted once if the token occurs in the output so far.
    temperature         0 samples the best token (the fields below then have no effect).
    top_k               keep the k best (ties at the k-th value all stay). None is off.
    min_p               keep the tokens whose probability is at least this share of the best one's. 0 is off.
    top_p               keep the smallest set of best tokens whose probability reaches p, within those kept above.
                        None is off, as is a value >= 1; 0 keeps the best token alone.
    seed                with the token's position this alone determines the random draw: the same request gives
                        the same completion in any batch. None: `make_request` chooses one.
    max_tokens          output tokens at most. None: as many as the context window has room for.
    min_tokens          before so many output tokens no stop token is sampled, and no stop string is looked for. A
                        grammar wins: where it allows nothing but the end, the completion ends.
    stop_token_ids      tokens that end a completion besides the model's own stop tokens, at most MAX_STOP_TOKENS.
    logprobs            report the log-probability of each sampled token and of this many of the best; 0 is the
                        sampled token alone, None is off. They are of the model's own distribution, before everything
                        above: the softmax of its logits over the whole vocabulary.
    prompt_logprobs  report the same of each token of the prompt from the second on, given those before it, and of this
                        many of the best in its place; 0 is the prompt's token alone, None is off.
    ignore_stop_tokens  go on past the model's own stop tokens (for benchmarks); a grammar still ends by them.
    """

    grammar: str | None = None
    logit_bias: dict[int, float] = {}
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    temperature: float = 0.6
    top_k: int | None = None
    min_p: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = 256
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    ignore_stop_tokens: bool = False

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value: Any = getattr(self, name)
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if value is not None and not is_number:
                raise BadInputError(f"{name} is {value!r}; a number is needed")
            if value is not None and not low <= value <= high:
                raise BadInputError(f"{name} is {value}, outside {low} to {high}")
        self._check_lengths()
        if len(self.logit_bias) > MAX_LOGIT_BIAS:
            raise BadInputError(f"logit_bias has {len(self.logit_bias)} entries, more than {MAX_LOGIT_BIAS}")
        for token_id, bias in self.logit_bias.items():
            if not -_MAX_BIAS <= bias <= _MAX_BIAS:
                raise BadInputError(f"logit_bias of token {token_id} is {bias}, outside {-_MAX_BIAS} to {_MAX_BIAS}")

    def _check_lengths(self) -> None:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise BadInputError(f"min_tokens is {self.min_tokens}, more than max_tokens, which is {self.max_tokens}")
        if len(self.stop_token_ids) > MAX_STOP_TOKENS:
            raise BadInputError(f"stop_token_ids has {len(self.stop_token_ids)} ids, more than {MAX_STOP_TOKENS}")


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("repetition_penalty", 0.0, 2.0),
    ("frequency_penalty", -2.0, 2.0),
    ("presence_penalty", -2.0, 2.0),
    ("temperature", 0.0, 5.0),
    ("top_k", 1, 2**31 - 1),
    ("min_p", 0.0, 1.0),
    ("top_p", 0.0, 2.0),
    ("seed", 0, 2**64 - 1),
    ("max_tokens", 0, 2**31 - 1),
    ("min_tokens", 0, 2**31 - 1),
    ("logprobs", 0, MAX_LOGPROBS),
    ("prompt_logprobs", 0, MAX_LOGPROBS),
)


class AdapterRef(msgspec.Struct, frozen=True):
    """An adapter as the engine knows it: the digest is its identity, the folder has its checked files."""

    digest: str  # SHA-256 over the canonical tensors and the settings that change the arithmetic, hex
    folder: str


class ScaledAdapter(msgspec.Struct, frozen=True):
    """An adapter in a request, and the factor on what it adds."""

    ref: AdapterRef
    scale: float = 1.0


def canonical_mix(adapters: Sequence[ScaledAdapter]) -> tuple[ScaledAdapter, ...]:
    """The adapters in the form that `EngineRequest` needs: scales rounded to float32, none of them 0, in order of
    digest.

    Raises BadInputError for a scale out of bounds, too many adapters, or an adapter given twice.
    """
    if len(adapters) > MAX_ADAPTERS:
        raise BadInputError(f"the request has {len(adapters)} adapters, more than {MAX_ADAPTERS}")
    check_scales([(one.ref.digest[:12], one.scale) for one in adapters])
    ordered = sorted(adapters, key=lambda one: one.ref.digest)
    for one, after in pairwise(ordered):
        if one.ref.digest == after.ref.digest:
            raise BadInputError(f"adapter {one.ref.digest[:12]} is in the request twice; add its scales up instead")
    rounded = (ScaledAdapter(one.ref, _as_float32(one.scale)) for one in ordered)
    return tuple(one for one in rounded if one.scale)


def check_scales(adapters: Sequence[tuple[str, float]]) -> None:
    """Raise BadInputError for a scale out of bounds.

    adapters  (name for the message, scale) of each
    """
    for shown, scale in adapters:
        if not abs(scale) <= MAX_ADAPTER_SCALE:  # not abs(scale) > ..., so that NaN is refused too
            bounds = f"{-MAX_ADAPTER_SCALE:g} to {MAX_ADAPTER_SCALE:g}"
            raise BadInputError(f"the scale of adapter {shown} is {scale:g}, outside {bounds}")


def _as_float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def mix_identity(adapters: Sequence[ScaledAdapter]) -> str | None:
    """The identity of a request's adapters in cache keys, segments and logs. None is the base model; for a single
    adapter at scale 1 it is the digest, otherwise a SHA-256 over digests and scales.
    """
    if not adapters:
        return None
    if len(adapters) == 1 and adapters[0].scale == 1:
        return adapters[0].ref.digest
    lines = (f"{adapter.ref.digest} {float(adapter.scale).hex()}\n" for adapter in adapters)
    return hashlib.sha256("".join(["mix 1\n", *lines]).encode()).hexdigest()


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured when an adapter ran on a short text and was compared with the reference from its files.

    num_modules     how many modules of the base it changes
    rank            the largest of their ranks
    scalable        whether it only adds to the base's outputs, so that a request may scale it and mix it with others
    largest_change  largest difference of a logit with and without it
    mean_change     mean difference, over all logits of the text. If rounding would hide the effect of a weak adapter,
                    both are measured at a larger scale and divided by that.
    agreement       1 - |served - reference| / |reference - base|, lengths over all logits: 1 is exact,
                    0 where rounding moves the logits as far as the adapter does, or further
    num_tokens      length of the text
    seconds         duration of the verification
    notes           sentences: what of the adapter's files is not used, and which modules are held with more bits
    """

    num_modules: int
    rank: int
    scalable: bool
    largest_change: float
    mean_change: float
    agreement: float
    num_tokens: int
    seconds: float
    notes: tuple[str, ...] = ()


class VerifiedAdapter(msgspec.Struct, frozen=True):
    """The identity of an adapter that was read, checked and verified: `AdapterRef.digest`."""

    digest: str
    verification: Verification


class EngineRequest(msgspec.Struct, frozen=True):
    """One sequence to generate.

    adapters    each digest once, none with scale 0, in order of digest; empty is the base model
    cache_salt  keys and values are shared with requests of the same salt only; None: with all that have none
    group       shared by requests that differ in their id and seed alone: their prompt is computed once, as far as they
                can run together. None for a request of its own
    """

    request_id: str
    prompt_ids: list[int]
    params: SamplingParams
    adapters: tuple[ScaledAdapter, ...] = ()
    priority: Priority = Priority.INTERACTIVE
    cache_salt: str | None = None
    group: str | None = None


class TokenTable(msgspec.Struct, frozen=True):
    """The vocabulary in a file for the engine, which needs it to enforce grammars.

    pieces    the bytes that each token id adds to a completion; empty for control tokens
    controls  the control tokens
    """

    pieces: list[bytes]
    controls: list[int]


class TokenLogprobs(msgspec.Struct, frozen=True):
    """Natural logarithms of probabilities at one position of the completion.

    chosen  of the token that was sampled
    best    the most probable tokens, (id, logprob), best first; as many as were asked for
    """

    chosen: float
    best: list[tuple[int, float]]


class PromptLogprobs(msgspec.Struct, frozen=True):
    """Natural logarithms of the probabilities of a prompt's tokens, from its second on, each given all before it.

    Packed arrays, because a prompt may be long: native byte order, one row per token.

    num_best  how many of the most probable tokens each row has
    chosen    [rows] float64, of the prompt's token
    ranks     [rows] int32: 1 + how many tokens are more probable
    best_ids  [rows, num_best] int32, best first; -1 where fewer tokens have a probability above 0
    best      [rows, num_best] float64
    """

    num_best: int
    chosen: bytes
    ranks: bytes
    best_ids: bytes
    best: bytes

    def rows(self) -> Iterator[PromptTokenLogprobs]:
        """One for each token of the prompt but the first."""
        chosen, ranks = memoryview(self.chosen).cast("d"), memoryview(self.ranks).cast("i")
        ids, best = memoryview(self.best_ids).cast("i"), memoryview(self.best).cast("d")
        for row, (logprob, rank) in enumerate(zip(chosen, ranks, strict=True)):
            begin, end = row * self.num_best, (row + 1) * self.num_best
            pairs = zip(ids[begin:end], best[begin:end], strict=True)
            yield PromptTokenLogprobs(logprob, rank, [pair for pair in pairs if pair[0] >= 0])


class PromptTokenLogprobs(msgspec.Struct, frozen=True):
    """One token of a prompt: its logprob, its rank, and the most probable tokens in its place, (id, logprob)."""

    chosen: float
    rank: int
    best: list[tuple[int, float]]


class TokenOutput(msgspec.Struct, frozen=True):
    """The result of one engine step for one request: usually one token, at the end also a finish reason.

    token_id is None when the request ended without a further token. A stop token of the model is reported with
    finish_reason STOP and counted as a completion token; its text is not part of the completion.
    """

    request_id: str
    token_id: int | None
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0  # prompt tokens that came from the prefix cache or from its group; set on the first output
    error: str | None = None  # with finish_reason ERROR: what failed
    logprobs: TokenLogprobs | None = None  # of token_id, if SamplingParams.logprobs asked for them
    prompt_logprobs: PromptLogprobs | None = None  # with the first output, if SamplingParams.prompt_logprobs asked
    refused: bool = False  # with an error: the request was invalid, and the engine did not fail
