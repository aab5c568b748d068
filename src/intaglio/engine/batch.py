"""From scheduled sequences to the flat arrays of one forward.

Rows of the same adapter, or the same mix of adapters, are contiguous, so that each adapter of a mix is one segment;
base rows come first and cost nothing extra.

    sequences   A (adapter x, 3 pending)   B (base, decoding)   C (adapter x, decoding)
    rows        B0 | A0 A1 A2 C0           adapters: x covers rows 1 ... 4
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from intaglio.engine.scheduler import Scheduled
from intaglio.engine.scoring.prompt_scores import PromptScores
from intaglio.model.gemma import ForwardBatch
from intaglio.ops import AdapterWeights, AttentionPlan, AttentionRow, LoraSegment, Ops


@dataclass(frozen=True, slots=True)
class StepBatch:
    """The forward's arrays, the sequences that a token is sampled for, in the order of its logit rows, and the rows of
    prompts that are scored.
    """

    forward: ForwardBatch
    sampling: list[Scheduled]
    scored: list[ScoredRows]


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Consecutive rows of the forward, and the token of the prompt that each of them is asked about: the next one."""

    item: Scheduled
    scores: PromptScores
    rows: range
    targets: list[int]

    def split(self, count: int) -> tuple[ScoredRows, ScoredRows]:
        """The first `count` rows, and the others."""
        head = replace(self, rows=self.rows[:count], targets=self.targets[:count])
        return head, replace(self, rows=self.rows[count:], targets=self.targets[count:])


def build_batch(
    scheduled: list[Scheduled], block_size: int, ops: Ops, adapter_of: Callable[[str], AdapterWeights]
) -> StepBatch:
    """Lay out one step. adapter_of gives a resident adapter by digest."""
    ordered = sorted(scheduled, key=lambda item: item.sequence.digest or "")
    spans = _row_spans(ordered)
    ids: list[int] = []
    for item in ordered:
        sequence, first = item.sequence, item.sequence.num_computed
        ids.extend(sequence.tokens[first : first + item.num_tokens])
    num_groups = len(ordered[0].sequence.tables)
    sampling = [(item, stop - 1) for item, (_, stop) in zip(ordered, spans, strict=True) if item.samples]
    adapters = ops.lora_plan(lora_segments(ordered, [item.num_tokens for item in ordered], adapter_of))
    logit_adapters = adapters  # if every row gives logits, as when all sequences decode
    if len(sampling) < len(ids):
        logit_adapters = ops.lora_plan(lora_segments([item for item, _ in sampling], [1] * len(sampling), adapter_of))
    forward = ForwardBatch(
        ids=ops.integers(ids),
        adapters=adapters,
        attention=[_attention_plan(ordered, spans, group, block_size, ops) for group in range(num_groups)],
        logit_rows=ops.integers([row for _, row in sampling]),
        logit_adapters=logit_adapters,
    )
    return StepBatch(forward, [item for item, _ in sampling], _scored_rows(ordered, spans))


def _scored_rows(ordered: list[Scheduled], spans: list[tuple[int, int]]) -> list[ScoredRows]:
    scored = []
    for item, (start, _) in zip(ordered, spans, strict=True):
        sequence = item.sequence
        positions = sequence.scored_positions(item.num_tokens)
        if positions and sequence.scores is not None:
            rows = range(
                start + positions.start - sequence.num_computed, start + positions.stop - sequence.num_computed
            )
            targets = sequence.tokens[positions.start + 1 : positions.stop + 1]
            scored.append(ScoredRows(item, sequence.scores, rows, targets))
    return scored


def _row_spans(ordered: list[Scheduled]) -> list[tuple[int, int]]:
    spans, start = [], 0
    for item in ordered:
        spans.append((start, start + item.num_tokens))
        start += item.num_tokens
    return spans


def lora_segments(
    ordered: list[Scheduled], counts: list[int], adapter_of: Callable[[str], AdapterWeights]
) -> list[LoraSegment]:
    """Which rows have which adapter. counts: how many contiguous rows each sequence has; those of one identity follow
    each other.
    """
    runs: dict[str | None, tuple[int, int, Scheduled]] = {}
    start = 0
    for item, count in zip(ordered, counts, strict=True):
        first = runs.get(item.sequence.digest, (start, 0, item))[0]
        start += count
        runs[item.sequence.digest] = (first, start, item)
    return [
        LoraSegment(first, stop, adapter_of(adapter.ref.digest), adapter.scale)
        for first, stop, item in runs.values()
        for adapter in item.sequence.adapters
    ]


def _attention_plan(
    ordered: list[Scheduled], spans: list[tuple[int, int]], group: int, block_size: int, ops: Ops
) -> AttentionPlan:
    rows: list[AttentionRow] = []
    for item, (start, stop) in zip(ordered, spans, strict=True):
        sequence = item.sequence
        table = sequence.tables[group]
        context = sequence.num_computed + item.num_tokens
        rows.append(AttentionRow(start, stop, context, table.first_block * block_size, table.blocks))
    return ops.attention_plan(rows, block_size)
