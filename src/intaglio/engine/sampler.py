"""From logits to tokens: collects what the ops need to know of each sequence.

    raw logits -> distributions (for log-probabilities) -> grammar's mask -> bias, penalties, temperature, ... -> token

The draw's key is (seed, number of output tokens so far). A preempted sequence keeps its outputs, so it resumes at the
same place of the same random stream.
"""

from __future__ import annotations

from dataclasses import dataclass

from intaglio.engine.sequence import Sequence
from intaglio.ops import Array, LogprobsQuery, Ops, SamplingRow
from intaglio.request import TokenLogprobs


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A sequence's next token; -1 if none of its logits is finite. logprobs: if its request asks for them."""

    token: int
    logprobs: TokenLogprobs | None = None


def sample_tokens(sequences: list[Sequence], logits: Array, vocab_size: int, ops: Ops) -> list[SampledToken]:
    """One token per sequence. The logits have one row per sequence, in the same order, and may be overwritten.

    Logits past `vocab_size` are padding and never sampled. If a matcher fails, it sets `Matcher.error`, and the token
    of its sequence is meaningless.
    """
    asking = [row for row, sequence in enumerate(sequences) if sequence.params.logprobs is not None]
    raw = ops.distributions(logits, asking, vocab_size) if asking else None
    for row, sequence in enumerate(sequences):
        allowed = sequence.matcher.allowed() if sequence.matcher else None
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
    )
