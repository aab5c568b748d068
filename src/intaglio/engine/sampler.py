"""From logits to tokens: collects what `ops.sample` needs to know of each sequence.

The draw's key is (seed, number of output tokens so far). A preempted sequence keeps its outputs, so it resumes at the
same place of the same random stream.
"""

from __future__ import annotations

from intaglio.engine.sequence import Sequence
from intaglio.ops import Array, Ops, SamplingRow


def choose_tokens(sequences: list[Sequence], logits: Array, vocab_size: int, ops: Ops) -> list[int]:
    """One token id per sequence, -1 where no logit is finite. Rows of logits past `vocab_size` are padding, never
    chosen.
    """
    return ops.sample(logits, [_row(sequence) for sequence in sequences], vocab_size)


def _row(sequence: Sequence) -> SamplingRow:
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
    )
