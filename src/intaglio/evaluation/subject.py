"""One model with or without an adapter, and the logits it gives for the tokens of a window, piece by piece.

The logits of a whole window do not fit into memory beside a large model: 2,048 rows of 262,144 tokens are 2 GB. A
window runs through the forward in pieces over one KV cache, and only rows that are scored have logits. A row's result
does not depend on how its window is cut (ARCHITECTURE.md, row independence).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from intaglio.model.gemma import ForwardBatch, Gemma, kv_groups
from intaglio.ops import AdapterWeights, AttentionRow, KVFormat, LoraSegment, Ops

BLOCK_SIZE = 16  # tokens in a block of the cache


class Subject:
    """label: names it in results, such as `w4` or `f16 + my-adapter`. adapter: prepared by `Gemma.prepare_adapter`."""

    def __init__(
        self, label: str, model: Gemma, ops: Ops, adapter: AdapterWeights | None = None, kv_format: KVFormat = "f32"
    ) -> None:
        self.label = label
        self.model = model
        self._ops = ops
        self._adapter = adapter
        self._kv_format = kv_format

    def start_window(self, max_tokens: int) -> RunningWindow:
        """A new sequence with room for max_tokens."""
        return RunningWindow(self.model, self._ops, self._adapter, max_tokens, self._kv_format)


class RunningWindow:
    """One sequence over a KV cache of its own. `restart` begins another one in the same memory."""

    def __init__(
        self, model: Gemma, ops: Ops, adapter: AdapterWeights | None, max_tokens: int, kv_format: KVFormat = "f32"
    ) -> None:
        config = model.config
        num_blocks = -(-max_tokens // BLOCK_SIZE)
        self._model, self._ops, self._adapter = model, ops, adapter
        self._blocks = list(range(num_blocks))
        self._cache = [
            ops.new_kv(len(group.layers), num_blocks, BLOCK_SIZE, config.num_kv_heads, config.head_dim, kv_format)
            for group in kv_groups(config)
        ]
        self._done = 0

    def restart(self) -> None:
        self._done = 0

    def extend(self, ids: Sequence[int], num_logit_rows: int) -> NDArray[np.float32]:
        """Append tokens. Returns the logits of the last num_logit_rows (at least one) of them, [rows, vocabulary]."""
        ops, count = self._ops, len(ids)
        context = self._done + count
        row = AttentionRow(0, count, context, 0, self._blocks[: -(-context // BLOCK_SIZE)])
        batch = ForwardBatch(
            ids=ops.integers(ids),
            adapters=ops.lora_plan(self._segments(count)),
            attention=[ops.attention_plan([row], BLOCK_SIZE) for _ in self._cache],
            logit_rows=ops.integers(range(count - num_logit_rows, count)),
            logit_adapters=ops.lora_plan(self._segments(num_logit_rows)),
        )
        self._done = context
        return np.asarray(self._model.forward(batch, self._cache))

    def _segments(self, num_rows: int) -> list[LoraSegment]:
        return [] if self._adapter is None else [LoraSegment(0, num_rows, self._adapter, 1.0)]
