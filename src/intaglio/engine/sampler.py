"""From logits to tokens: collects what the ops need to know of each sequence.

    raw logits -> distributions (for log-probabilities) -> grammar's mask, min_tokens -> bias, penalties, ... -> token

The draw's key is (seed, number of output tokens so far). A preempted sequence keeps its outputs, so it resumes at the
same place of the same random stream.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from intaglio.engine.sequence import Sequence
from intaglio.ops import Array, LogprobsQuery, Ops, SamplingRow
from intaglio.request import TokenLogprobs


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A sequence's next token; -1 if none of its logits is finite. logprobs: if its request asks for them."""

    token: int
    logprobs: TokenLogprobs | None = None


def sample_tokens(
    sequences: list[Sequence], logits: Array, vocab_size: int, ops: Ops, stop_ids: frozenset[int] = frozenset()
) -> list[SampledToken]:
    """One token per sequence. The logits have one row per sequence, in the same order, and may be overwritten.

    Logits past `vocab_size` are padding and never sampled. If a matcher fails, it sets `Matcher.error`, and the token
    of its sequence is meaningless. stop_ids: the model's own, which `min_tokens` holds back.
    """
    asking = [row for row, sequence in enumerate(sequences) if sequence.params.logprobs is not None]
    raw = ops.distributions(logits, asking, vocab_size) if asking else None
    for row, sequence in enumerate(sequences):
        allowed = _allowed_tokens(sequence, vocab_size, stop_ids)
        if allowed is not None:
            ops.mask_tokens(logits, row, allowed)
    rows = [_sampling_row(sequence) for sequence in sequences]
    sampled = [SampledToken(token) for token in ops.sample(logits, rows, vocab_size)]
    if asking:
        # A row without a token asks for token 0: the result is dropped, because its sequence ends in an error.
        queries = [LogprobsQuery(max(sampled[row].token, 0), sequences[row].params.logprobs or 0) for row in asking]
        for row, found in zip(asking, ops.logprobs(raw, queries), strict=True):
            sampled[row] = SampledToken(sampled[row].token, TokenLogprobs(found.chosen, found.best))
    return sampled


def _allowed_tokens(sequence: Sequence, vocab_size: int, stop_ids: frozenset[int]) -> bytes | None:
    """The mask of tokens that may come next; None if all may, or if the matcher failed."""
    matcher = sequence.matcher
    allowed = None if matcher is None else matcher.allowed()
    if sequence.num_output >= sequence.params.min_tokens or (matcher is not None and allowed is None):
        return allowed
    ends = sequence.end_ids(stop_ids)
    everything = b"\xff" * -(-vocab_size // 8)
    if allowed is None:
        return without_tokens(everything, ends)
    held_back = without_tokens(allowed, ends)
    return held_back if any(held_back) else allowed  # a grammar that allows nothing but the end wins


def without_tokens(mask: bytes, ids: Collection[int]) -> bytes:
    """The mask (`Ops.mask_tokens`) with these tokens not allowed; ids past its end are not allowed anyway."""
    changed = bytearray(mask)
    for token in ids:
        if token < 8 * len(changed):
            changed[token // 8] &= ~(1 << token % 8)
    return bytes(changed)


def _sampling_row(sequence: Sequence) -> SamplingRow:
    params = sequence.params
    has_penalty = params.repetition_penalty not in (0.0, 1.0) or params.frequency_penalty or params.presence_penalty
    return SamplingRow(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        repetition_penalty=params.repetition_penalty,
        frequency_penalty=params.frequency_penalty,
        presence_penalty=params.presence_penalty,
        seed=params.seed or 0,
        position=sequence.num_output,
        prompt_ids=sequence.request.prompt_ids if has_penalty else (),
        output_ids=sequence.tokens[sequence.num_prompt :] if has_penalty else (),
        logit_bias=tuple(params.logit_bias.items()),
        min_p=params.min_p,
    )
