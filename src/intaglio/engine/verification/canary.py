"""The short text that adapters are verified on, and its logits computed in two ways.

`served_logits` computes as the engine does: sequences in one batch, laid out by `build_batch`, with blocks from the KV
cache manager and the adapter as it was packed and prepared. Each step has three sequences, so that rows of the base, of
the adapter and of a mix are neighbours:

    step    base          adapter       the adapter again, as two halves if it is additive
    1       0 ... n-4     0 ... n-4     0
    2       n-3           n-3           1 ... n-3
    3       n-2           n-2           n-2
    4       n-1           n-1           n-1

`plain_logits` runs one forward with all tokens, laid out by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import TypeAlias

from intaglio.engine.batch import build_batch
from intaglio.engine.kv_cache import KVCacheManager
from intaglio.engine.scheduler import Scheduled
from intaglio.engine.sequence import Sequence
from intaglio.model.gemma import ForwardBatch, Gemma, kv_groups
from intaglio.ops import AdapterWeights, Array, AttentionRow, KVGroup, LoraSegment, Ops
from intaglio.request import AdapterRef, EngineRequest, SamplingParams, ScaledAdapter

Logits: TypeAlias = Mapping[int, Array]  # position -> [vocab]

_NUM_FIXED = 15
_NUM_OWN = 4  # tokens that the adapter has rows for
_BOS = 2  # of every Gemma
_END_COMMON = 50_000  # ids from here on are rare words
_MULTIPLIER = 2_654_435_761  # Knuth's: spreads 1, 2, 3, ... over any range

_FIRST, _SECOND = AdapterRef("first", ""), AdapterRef("second", "")  # one adapter under two digests


def canary_ids(vocab_size: int, own: Seq[int] = ()) -> list[int]:
    """Token ids: BOS and a fixed selection. Before the last four, so that these attend to them, come some of `own`, the
    tokens that the adapter has rows for.
    """
    first, end = min(1000, vocab_size // 2), min(vocab_size, _END_COMMON)
    fixed = [first + k * _MULTIPLIER % (end - first) for k in range(1, _NUM_FIXED)]
    return [min(_BOS, vocab_size - 1), *fixed[:-4], *own[:_NUM_OWN], *fixed[-4:]]


def logit_positions(num_tokens: int) -> list[int]:
    """The positions at which both ways give logits, in ascending order."""
    return [0, *range(num_tokens - 4, num_tokens)]


def served_logits(
    model: Gemma, ops: Ops, block_size: int, ids: Seq[int], weights: AdapterWeights, scale: float, *, is_sum: bool
) -> list[Logits]:
    """Logits of the three sequences, each at some of `logit_positions`."""
    n = len(ids)
    again = [ScaledAdapter(_FIRST, scale / 2), ScaledAdapter(_SECOND, scale / 2)] if is_sum else [ScaledAdapter(_FIRST)]
    mixes = [[], [ScaledAdapter(_FIRST, scale)], again]
    pieces = [[n - 3, 1, 1, 1], [n - 3, 1, 1, 1], [1, n - 3, 1, 1]]
    groups = kv_groups(model.config)
    sequences = [
        Sequence.from_request(EngineRequest(str(row), [], SamplingParams(), tuple(mix)), len(groups))
        for row, mix in enumerate(mixes)
    ]
    num_blocks = len(sequences) * -(-n // block_size)
    manager = KVCacheManager(groups, [num_blocks] * len(groups), block_size, prefix_cache=False)
    cache = _new_cache(model, ops, num_blocks, block_size)
    found: list[dict[int, Array]] = [{} for _ in sequences]
    for step in range(len(pieces[0])):
        scheduled = []
        for sequence, counts in zip(sequences, pieces, strict=True):
            sequence.tokens.extend(ids[sequence.num_computed : sequence.num_computed + counts[step]])
            manager.grow(sequence, counts[step])
            scheduled.append(Scheduled(sequence, counts[step]))
        batch = build_batch(scheduled, block_size, ops, lambda _: weights)
        logits = model.forward(batch.forward, cache)
        for item in scheduled:
            manager.commit(item.sequence, item.num_tokens)
        for row, item in enumerate(batch.sampling):
            found[int(item.sequence.request_id)][item.sequence.num_computed - 1] = logits[row]
    return list(found)


def plain_logits(
    model: Gemma, ops: Ops, ids: Seq[int], adapters: Seq[tuple[AdapterWeights, float] | None]
) -> list[Logits]:
    """Logits at `logit_positions` under each adapter with its scale; None is the base."""
    n, wanted = len(ids), logit_positions(len(ids))
    starts = range(0, n * len(adapters), n)
    rows = [start + position for start in starts for position in wanted]
    chosen = [(index, *adapter) for index, adapter in enumerate(adapters) if adapter is not None]
    k = len(wanted)
    batch = ForwardBatch(
        ids=ops.integers([*ids] * len(adapters)),
        adapters=ops.lora_plan([LoraSegment(i * n, (i + 1) * n, weights, scale) for i, weights, scale in chosen]),
        attention=[
            ops.attention_plan([AttentionRow(start, start + n, n, 0, [start // n]) for start in starts], n)
            for _ in kv_groups(model.config)
        ],
        logit_rows=ops.integers(rows),
        logit_adapters=ops.lora_plan([LoraSegment(i * k, (i + 1) * k, weights, scale) for i, weights, scale in chosen]),
    )
    logits = model.forward(batch, _new_cache(model, ops, len(adapters), n))
    return [{position: logits[i * k + j] for j, position in enumerate(wanted)} for i in range(len(adapters))]


def _new_cache(model: Gemma, ops: Ops, num_blocks: int, block_size: int) -> list[KVGroup]:
    config = model.config
    return [
        ops.new_kv(len(group.layers), num_blocks, block_size, config.num_kv_heads, config.head_dim)
        for group in kv_groups(config)
    ]
