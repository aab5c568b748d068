"""Scores the prompts of a step: the logits of a few rows at a time, from which only the scores are kept.

The logits of a whole prompt would be large: 4,096 rows of 262,144 tokens are 4 GB. A row's score does not depend on
which rows share its chunk (ARCHITECTURE.md, row independence).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from intaglio.engine.batch import ScoredRows, StepBatch, lora_segments
from intaglio.model.config import ModelConfig
from intaglio.model.gemma import Gemma
from intaglio.ops import AdapterWeights, Array, LogprobsQuery, Ops

CHUNK_ROWS = 32  # 34 MB of logits with 262,144 tokens


def scored_row_cost(config: ModelConfig) -> float:
    """How much a row whose logits are computed costs, in rows without: by the multiplications of head and layers.

    2.7 for Gemma 3 270M, which is what was measured; 1.1 for Gemma 7B.
    """
    queries, keys = config.num_heads * config.head_dim, 2 * config.num_kv_heads * config.head_dim
    layer = config.hidden_size * (2 * queries + keys + 3 * config.intermediate_size)
    return 1 + config.vocab_size * config.hidden_size / (config.num_layers * layer)


def score_prompts(
    batch: StepBatch,
    hidden: Array,
    model: Gemma,
    ops: Ops,
    vocab_size: int,
    adapter_of: Callable[[str], AdapterWeights],
) -> None:
    """Add the step's rows to the scores of their sequences.

    hidden      [tokens, hidden], from `Gemma.hidden`
    adapter_of  gives a resident adapter by digest
    """
    for chunk in _chunks(batch.scored):
        segments = lora_segments([part.item for part in chunk], [len(part.targets) for part in chunk], adapter_of)
        rows = ops.integers([row for part in chunk for row in part.rows])
        logits = model.logits(hidden, rows, ops.lora_plan(segments))
        wanted = [(part.scores, target) for part in chunk for target in part.targets]
        distributions = ops.distributions(logits, range(len(wanted)), vocab_size)
        queries = [LogprobsQuery(target, scores.num_best) for scores, target in wanted]
        for (scores, _), found in zip(wanted, ops.logprobs(distributions, queries), strict=True):
            scores.add(found)


def _chunks(scored: list[ScoredRows]) -> Iterator[list[ScoredRows]]:
    """The rows in their order, CHUNK_ROWS at a time; the last chunk may have fewer."""
    chunk: list[ScoredRows] = []
    room = CHUNK_ROWS
    for part in scored:
        rest = part
        while len(rest.targets) >= room:
            head, rest = rest.split(room)
            yield [*chunk, head]
            chunk, room = [], CHUNK_ROWS
        if rest.targets:
            chunk.append(rest)
            room -= len(rest.targets)
    if chunk:
        yield chunk
