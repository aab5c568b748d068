"""The blocks of one KV group: how many sequences refer to each, and which idle ones still hold a cached prefix.

in use     at least one sequence refers to it
idle       no sequence does; ordered by what is reused next: blocks without a key first, then the least recently used
keyed      its content is known by a prefix-cache key (in use or idle); an idle keyed block is a cache entry
"""

from __future__ import annotations

from collections import OrderedDict


class BlockPool:
    """Ids 0 ... num_blocks - 1 with reference counts and a key index. It does not know what a block contains."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._refs = [0] * num_blocks
        self._idle: OrderedDict[int, None] = OrderedDict((block, None) for block in range(num_blocks))
        self._key_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def num_idle(self) -> int:
        """Blocks that `allocate` can give out now."""
        return len(self._idle)

    @property
    def num_cached(self) -> int:
        """Idle blocks that hold a prefix: what the prefix cache has beside the blocks in use."""
        return sum(self._refs[block] == 0 for block in self._key_of)

    def find(self, key: bytes) -> int | None:
        """The block that holds this prefix, if any."""
        return self._block_of.get(key)

    def is_idle(self, block: int) -> bool:
        return self._refs[block] == 0

    def allocate(self) -> int:
        """Take the first idle block; its key, if any, is forgotten. `num_idle` must not be 0."""
        block, _ = self._idle.popitem(last=False)
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._block_of[key]
        self._refs[block] = 1
        return block

    def retain(self, block: int) -> None:
        """Add a reference to a block that is in use, or idle with a key."""
        if self._refs[block] == 0:
            del self._idle[block]
        self._refs[block] += 1

    def release(self, block: int) -> None:
        """Remove a reference."""
        assert self._refs[block] > 0, f"block {block} released more often than held"
        self._refs[block] -= 1
        if self._refs[block] == 0:
            self._idle[block] = None
            if block not in self._key_of:
                self._idle.move_to_end(block, last=False)

    def set_key(self, block: int, key: bytes) -> None:
        """Make a full block findable. The first block with a key keeps it; another with the same content gets none."""
        if key not in self._block_of and block not in self._key_of:
            self._block_of[key] = block
            self._key_of[block] = key

    def check(self, held: list[int]) -> None:
        """Raise AssertionError unless the bookkeeping agrees with the blocks that sequences hold (with repeats)."""
        counts = [0] * self.num_blocks
        for block in held:
            counts[block] += 1
        assert counts == self._refs, "reference counts differ from the block tables"
        assert set(self._idle) == {block for block, refs in enumerate(self._refs) if refs == 0}, "idle list is wrong"
        assert self._block_of == {key: block for block, key in self._key_of.items()}, "key index is not one to one"
