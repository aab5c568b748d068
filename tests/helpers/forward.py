"""Runs prompts through `Gemma.forward` with a small paged cache, without scheduler and engine.

A prompt may run whole, in chunks or token by token, alone or beside others with other adapters. Its blocks are assigned
in a shuffled order: code that takes them for consecutive fails.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from intaglio.model.gemma import ForwardBatch, Gemma, kv_groups
from intaglio.ops import AdapterTensors, AttentionRow, KVFormat, KVGroup, LoraPair, LoraSegment, ModuleKey, Ops
from intaglio.ops.reference import ReferenceOps

F32 = NDArray[np.float32]


AdapterPairs = Mapping[ModuleKey, LoraPair]
Mix = Sequence[tuple[AdapterTensors, float]]  # adapters and their scales


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids and their adapter: pairs, a whole adapter, or several with scales; None is the base model."""

    ids: Sequence[int]
    adapter: AdapterPairs | AdapterTensors | Mix | None = None

    @property
    def mix(self) -> Mix:
        if self.adapter is None:
            return []
        if isinstance(self.adapter, AdapterTensors):
            return [(self.adapter, 1.0)]
        return [(AdapterTensors(self.adapter), 1.0)] if isinstance(self.adapter, Mapping) else self.adapter


@dataclass(slots=True)
class _Running:
    """A prompt, the number of its tokens that are done, and per KV group its blocks and how many were released."""

    index: int
    prompt: Prompt
    done: int = 0
    blocks: list[list[int]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)


def run_prompts(
    model: Gemma,
    prompts: Sequence[Prompt],
    *,
    ops: Ops | None = None,
    chunk: int | None = None,
    wanted: Sequence[int] | None = None,
    block_size: int = 5,
    seed: int = 0,
    keep_window_only: bool = True,
    kv_format: KVFormat = "f32",
) -> list[F32]:
    """Logits of each prompt: [tokens, vocab], or [len(wanted), vocab] for the ascending positions `wanted`.

    chunk             tokens of each prompt per forward; None runs every prompt whole
    keep_window_only  release blocks that a sliding window has moved past, as the engine does
    """
    ops = ops or ReferenceOps()
    cache = _Cache(model, prompts, ops, block_size, seed, keep_window_only, kv_format)
    # Rows of one adapter must be consecutive.
    running = [_Running(index, prompt) for index, prompt in enumerate(prompts)]
    first: dict[int, int] = {id(None): -1}  # the prompt where an adapter appears first; the base is before all
    for item in running:
        first.setdefault(id(item.prompt.adapter), item.index)
    running.sort(key=lambda item: first[id(item.prompt.adapter)])
    for item in running:
        item.blocks = [[] for _ in cache.groups]
        item.dropped = [0 for _ in cache.groups]
    logits: list[list[F32]] = [[] for _ in prompts]
    while pending := [item for item in running if item.done < len(item.prompt.ids)]:
        _step(model, cache, pending, chunk, wanted, logits)
    return [np.concatenate(rows) for rows in logits]


class _Cache:
    """Keys and values of all prompts, and a shuffled list of free blocks per group."""

    def __init__(
        self,
        model: Gemma,
        prompts: Sequence[Prompt],
        ops: Ops,
        block_size: int,
        seed: int,
        keep_window_only: bool,
        kv_format: KVFormat,
    ) -> None:
        config = model.config
        self.ops, self.block_size, self.keep_window_only = ops, block_size, keep_window_only
        self.groups = kv_groups(config)
        count = sum(-(-len(prompt.ids) // block_size) for prompt in prompts) + 3  # three that stay unused
        self.kv: list[KVGroup] = [
            ops.new_kv(len(group.layers), count, block_size, config.num_kv_heads, config.head_dim, kv_format)
            for group in self.groups
        ]
        shuffle = random.Random(seed).sample
        self.free = [shuffle(range(count), count) for _ in self.groups]

    def row(self, group: int, item: _Running, start: int, count: int) -> AttentionRow:
        """The attention row of the prompt's next `count` tokens, which begin at row `start`; assigns blocks to them."""
        size, context = self.block_size, item.done + count
        blocks, free = item.blocks[group], self.free[group]
        while (item.dropped[group] + len(blocks)) * size < context:
            blocks.append(free.pop(0))
        return AttentionRow(start, start + count, context, item.dropped[group] * size, list(blocks))

    def release_old_blocks(self, item: _Running) -> None:
        """Append the blocks that no later token of the prompt can see to the free list."""
        for index, group in enumerate(self.groups):
            if group.window is None or not self.keep_window_only:
                continue
            first_needed = max(0, item.done - group.window + 1) // self.block_size
            while item.dropped[index] < first_needed and item.blocks[index]:
                self.free[index].append(item.blocks[index].pop(0))
                item.dropped[index] += 1


def _step(
    model: Gemma,
    cache: _Cache,
    pending: list[_Running],
    chunk: int | None,
    wanted: Sequence[int] | None,
    logits: list[list[F32]],
) -> None:
    """One forward of the next tokens of every prompt, at most `chunk` of each."""
    counts = [min(chunk or len(item.prompt.ids), len(item.prompt.ids) - item.done) for item in pending]
    starts = [sum(counts[:i]) for i in range(len(counts))]
    ids: list[int] = []
    logit_rows: list[list[int]] = []
    for item, start, count in zip(pending, starts, counts, strict=True):
        here = range(item.done, item.done + count)
        ids += [item.prompt.ids[position] for position in here]
        logit_rows.append([start + p - item.done for p in here if wanted is None or p in wanted])
    ops = cache.ops
    plans = []
    for group in range(len(cache.groups)):
        rows = [
            cache.row(group, item, start, count) for item, start, count in zip(pending, starts, counts, strict=True)
        ]
        plans.append(ops.attention_plan(rows, cache.block_size))
    batch = ForwardBatch(
        ops.integers(ids),
        ops.lora_plan(_segments(model, pending, counts)),
        plans,
        ops.integers([row for rows in logit_rows for row in rows]),
        ops.lora_plan(_segments(model, pending, [len(rows) for rows in logit_rows])),
    )
    out = np.asarray(model.forward(batch, cache.kv))
    ends = np.cumsum([len(rows) for rows in logit_rows])
    for item, count, own in zip(pending, counts, np.split(out, ends[:-1]), strict=True):
        logits[item.index].append(own)
        item.done += count
        cache.release_old_blocks(item)


def _segments(model: Gemma, pending: list[_Running], counts: Sequence[int]) -> list[LoraSegment]:
    """One segment for consecutive prompts with the same adapter. counts: rows of each prompt."""
    runs: list[tuple[int, int, Prompt]] = []
    start = 0
    for item, count in zip(pending, counts, strict=True):
        same = bool(runs) and runs[-1][2].adapter is item.prompt.adapter
        first = runs.pop()[0] if same else start
        start += count
        runs.append((first, start, item.prompt))
    return [
        LoraSegment(first, stop, model.prepare_adapter(tensors), scale)
        for first, stop, prompt in runs
        for tensors, scale in prompt.mix
    ]
