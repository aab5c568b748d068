"""The paged KV cache of all sequences: block tables, the prefix cache, and the window of sliding-window layers.

Layers form groups that keep the same positions (`model.kv_groups`): those that see everything, and those that see the
last W tokens. Each group has a pool of blocks and each sequence one block table per group. A block that
has left the window goes back to the pool at once.

The prefix cache is the pools' index of full blocks by key, where

    key(i) = hash(key(i - 1), ids of block i),   key(-1) = the adapter's digest, or "base", and the request's salt

so an adapter's keys and values can never serve another adapter. A hit of n blocks needs, in a group with a window,
only the blocks that the next token can still see.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from intaglio.engine.block_pool import BlockPool
from intaglio.engine.sequence import BlockTable, Sequence
from intaglio.errors import SettingsError
from intaglio.model.config import ModelConfig
from intaglio.model.gemma import KVGroupShape, kv_groups
from intaglio.ops import KVFormat
from intaglio.ops.cached_values import token_bytes


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """A block of a KV group whose content another one of that group has to get."""

    group: int
    source: int
    target: int


class KVCacheManager:
    """Allocates and frees the blocks of sequences. It does not touch keys or values; the forward writes those."""

    def __init__(
        self, groups: Seq[KVGroupShape], num_blocks: Seq[int], block_size: int, *, prefix_cache: bool = True
    ) -> None:
        self.groups = tuple(groups)
        self.block_size = block_size
        self.pools = [BlockPool(count) for count in num_blocks]
        self._prefix_cache = prefix_cache

    # -- admission

    def find_prefix(self, sequence: Sequence) -> int:
        """Tokens at the sequence's start whose keys and values are cached. Always leaves one token to compute."""
        if not self._prefix_cache:
            return 0
        usable = min(len(sequence.tokens) - 1, sequence.num_reusable) // self.block_size
        hit = 0
        # One pass over the keys, because this runs at every attempt to admit the sequence. runs: for each group, how
        # many cached blocks without a gap end here.
        runs = [0] * len(self.groups)
        for end, key in enumerate(self._block_keys(sequence, usable), 1):
            runs = [0 if pool.find(key) is None else run + 1 for run, pool in zip(runs, self.pools, strict=True)]
            if any(group.window is None and run < end for group, run in zip(self.groups, runs, strict=True)):
                break
            needed = (end - self._first_needed(group, end * self.block_size) for group in self.groups)
            if all(run >= blocks for run, blocks in zip(runs, needed, strict=True)):
                hit = end
        return hit * self.block_size

    def can_admit(self, sequence: Sequence, num_cached: int) -> bool:
        """Whether all tokens the sequence has could be computed, `num_cached` of them taken from the cache."""
        for group, pool in zip(self.groups, self.pools, strict=True):
            first, end = self._first_needed(group, num_cached), self._num_blocks_for(num_cached)
            shared = [pool.find(key) for key in sequence.block_keys[first:end]]
            num_idle_shared = sum(block is not None and pool.is_idle(block) for block in shared)
            if pool.num_idle - num_idle_shared < self._num_new_blocks(group, sequence, end):
                return False
        return True

    def admit(self, sequence: Sequence, num_cached: int) -> None:
        """Give the sequence the cached prefix found by `find_prefix`."""
        for group, pool, table in zip(self.groups, self.pools, sequence.tables, strict=True):
            assert not table.blocks, "a sequence is admitted with empty tables"
            end = num_cached // self.block_size
            table.first_block = min(self._first_needed(group, num_cached), end)
            for key in sequence.block_keys[table.first_block : end]:
                block = pool.find(key)
                assert block is not None, "the prefix was found a moment ago"
                pool.retain(block)
                table.blocks.append(block)
        sequence.num_computed = num_cached

    # -- groups of sequences with one prompt

    def can_fork(self, sequence: Sequence, num_shared: int) -> bool:
        """Whether all tokens the sequence has could be computed, `num_shared` of them shared with a running one."""
        full = num_shared // self.block_size
        return all(
            pool.num_idle >= self._num_new_blocks(group, sequence, full)
            for group, pool in zip(self.groups, self.pools, strict=True)
        )

    def fork(self, sequence: Sequence, source: Sequence, num_shared: int) -> list[BlockCopy]:
        """Give the sequence the first `num_shared` tokens of another: its full blocks, and a block of its own for the
        tokens after them.

        source  has their keys and values, not committed yet, so that no block of theirs has left a window
        Returns what has to be copied before a block is freed.
        """
        copies = []
        full, rest = divmod(num_shared, self.block_size)
        for index, (group, pool) in enumerate(zip(self.groups, self.pools, strict=True)):
            table, theirs = sequence.tables[index], source.tables[index]
            assert not table.blocks, "a sequence is admitted with empty tables"
            table.first_block = min(self._first_needed(group, num_shared), full)
            assert theirs.first_block <= table.first_block, "a visible block is gone"
            table.blocks.extend(theirs.blocks[table.first_block - theirs.first_block : full - theirs.first_block])
            for block in table.blocks:
                pool.retain(block)
            if rest:
                table.blocks.append(pool.allocate())
                copies.append(BlockCopy(index, theirs.blocks[full - theirs.first_block], table.blocks[-1]))
        sequence.num_computed = num_shared
        return copies

    # -- steps

    def can_grow(self, sequence: Sequence, num_tokens: int) -> bool:
        """Whether there are blocks for the next `num_tokens` tokens."""
        return all(
            pool.num_idle >= missing
            for pool, missing in zip(self.pools, self._missing_blocks(sequence, num_tokens), strict=True)
        )

    def grow(self, sequence: Sequence, num_tokens: int) -> None:
        """Allocate the blocks for the sequence's next `num_tokens` tokens."""
        for pool, table, missing in zip(
            self.pools, sequence.tables, self._missing_blocks(sequence, num_tokens), strict=True
        ):
            table.blocks.extend(pool.allocate() for _ in range(missing))

    def commit(self, sequence: Sequence, num_tokens: int) -> None:
        """The next `num_tokens` tokens are computed: make full blocks findable, free those that left the window."""
        before = sequence.num_computed // self.block_size
        sequence.num_computed += num_tokens
        full = sequence.num_computed // self.block_size
        keys = self._block_keys(sequence, full) if self._prefix_cache else []
        for group, pool, table in zip(self.groups, self.pools, sequence.tables, strict=True):
            for index in range(max(before, table.first_block), len(keys)):
                pool.set_key(table.blocks[index - table.first_block], keys[index])
            self._release_before(pool, table, self._first_needed(group, sequence.num_computed))

    def free(self, sequence: Sequence) -> None:
        """Release every block. The last one first, so that the start of a prefix is evicted last."""
        for pool, table in zip(self.pools, sequence.tables, strict=True):
            for block in reversed(table.blocks):
                pool.release(block)
            table.blocks.clear()
            table.first_block = 0
        sequence.num_computed = 0

    def check(self, sequences: Iterable[Sequence]) -> None:
        """Raise AssertionError unless pools and tables agree and every sequence holds what it must."""
        sequences = list(sequences)
        for index, (group, pool) in enumerate(zip(self.groups, self.pools, strict=True)):
            pool.check([block for sequence in sequences for block in sequence.tables[index].blocks])
            for sequence in sequences:
                table = sequence.tables[index]
                if table.blocks or sequence.num_computed:
                    assert table.first_block <= self._first_needed(group, sequence.num_computed), (
                        "a visible block is gone"
                    )
                    assert table.end_block * self.block_size >= sequence.num_computed, "computed tokens without a block"

    # -- arithmetic

    def _num_blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _num_new_blocks(self, group: KVGroupShape, sequence: Sequence, end: int) -> int:
        """Blocks that all tokens of the sequence need besides the first `end` ones."""
        total = self._num_blocks_for(len(sequence.tokens))
        if group.window is not None:  # blocks that left the window are freed while the prompt is computed
            total = min(total, end + self._num_blocks_for(group.window) + 1)
        return total - end

    def _first_needed(self, group: KVGroupShape, position: int) -> int:
        """The first block that the token at `position` can see."""
        return 0 if group.window is None else max(0, position - group.window + 1) // self.block_size

    def _missing_blocks(self, sequence: Sequence, num_tokens: int) -> list[int]:
        end = self._num_blocks_for(sequence.num_computed + num_tokens)
        return [max(0, end - table.end_block) for table in sequence.tables]

    def _release_before(self, pool: BlockPool, table: BlockTable, first: int) -> None:
        count = min(first, table.end_block) - table.first_block
        if count > 0:
            for block in table.blocks[:count]:
                pool.release(block)
            del table.blocks[:count]
            table.first_block += count

    def _block_keys(self, sequence: Sequence, count: int) -> list[bytes]:
        """Keys of the first `count` blocks, which must be full of tokens; computed once per block."""
        keys = sequence.block_keys
        while len(keys) < count:
            parent = keys[-1] if keys else _root_key(sequence)
            start = len(keys) * self.block_size
            ids = array("i", sequence.tokens[start : start + self.block_size])
            keys.append(hashlib.sha256(parent + b"/" + ids.tobytes()).digest())
        return keys[:count]


def _root_key(sequence: Sequence) -> bytes:
    root = (sequence.digest or "base").encode()
    salt = sequence.request.cache_salt
    return root if salt is None else root + b"/" + hashlib.sha256(salt.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What determines the size of a KV cache; `Settings` describes the last three fields."""

    config: ModelConfig
    fmt: KVFormat
    block_size: int
    max_running: int
    step_tokens: int

    @property
    def groups(self) -> tuple[KVGroupShape, ...]:
        return kv_groups(self.config)

    def block_bytes(self, group: KVGroupShape) -> int:
        per_layer = token_bytes(self.fmt, self.config.num_kv_heads, self.config.head_dim)
        return len(group.layers) * self.block_size * per_layer

    def plan_blocks(self, cache_bytes: int) -> list[int]:
        """How many blocks each KV group gets.

        A group with a window never needs more than every running sequence's window plus one step's new tokens; it gets
        that, but at most half of the bytes, and the groups without a window get the rest.
        Raises SettingsError with the sum if not even one sequence of a useful length fits.
        """
        groups, blocks = self.groups, [0] * len(self.groups)
        windowed = [index for index, group in enumerate(groups) if group.window is not None]
        share = cache_bytes if len(windowed) == len(groups) else cache_bytes // 2
        remaining = cache_bytes
        for index in windowed:
            affordable = share // len(windowed) // self.block_bytes(groups[index])
            blocks[index] = min(self._wanted_blocks(groups[index]), affordable)
            remaining -= blocks[index] * self.block_bytes(groups[index])
        for index in range(len(groups)):
            if index not in windowed:
                blocks[index] = remaining // self.block_bytes(groups[index])
        if any(have < self._least_blocks(group) for have, group in zip(blocks, groups, strict=True)):
            raise SettingsError(
                f"kv_cache_bytes is {cache_bytes}, too little for one sequence: this model with step_tokens "
                f"{self.step_tokens} needs about {self.least_bytes()}"
            )
        return blocks

    def least_bytes(self) -> int:
        """Bytes with which every group gets the blocks for one sequence that fills a step."""
        # twice, because a group with a window gets at most half
        return 2 * sum(self._least_blocks(group) * self.block_bytes(group) for group in self.groups)

    def bytes_for(self, num_sequences: int, length: int) -> int:
        """Bytes with which `num_sequences` of `length` tokens fit into the groups without a window."""
        whole = sum(
            num_sequences * -(-length // self.block_size) * self.block_bytes(group)
            for group in self.groups
            if group.window is None
        )
        windows = sum(
            self._wanted_blocks(group) * self.block_bytes(group) for group in self.groups if group.window is not None
        )
        needed = whole + min(windows, whole) if whole else windows
        return max(needed, self.least_bytes())

    def _wanted_blocks(self, group: KVGroupShape) -> int:
        """Blocks of a group with a window that are enough, whatever runs."""
        window = group.window or 0
        return self.max_running * (window // self.block_size + 2) + self.step_tokens // self.block_size + 1

    def _least_blocks(self, group: KVGroupShape) -> int:
        if group.window is None:
            return -(-self.step_tokens // self.block_size)
        return (group.window + self.step_tokens) // self.block_size + 2


def longest_sequence(groups: Seq[KVGroupShape], blocks: Seq[int], block_size: int, context_length: int) -> int:
    """Tokens that a single sequence can have: the context length, or what the unwindowed groups can hold."""
    held = [count * block_size for group, count in zip(groups, blocks, strict=True) if group.window is None]
    return min([context_length, *held])
