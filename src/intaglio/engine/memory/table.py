"""The table of the memory that the engines will use, shown before the models are loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from intaglio.engine.kv_cache import CacheShape, longest_sequence
from intaglio.engine.memory.available import AvailableMemory
from intaglio.engine.memory.plan import EngineMemory, context_window
from intaglio.settings import Settings

Row = tuple[str, int, str]  # name, bytes, remark


def memory_table(
    engines: Mapping[str, tuple[CacheShape, EngineMemory]], settings: Settings, available: AvailableMemory
) -> str:
    """A row for each part of each model's memory, and what is left when every cache is full.

    engines  by the name that is shown
    """
    rows: list[Row] = []
    for name, (shape, memory) in engines.items():
        rows += _model_rows(name, shape, memory, settings)
    used = sum(memory.fixed + memory.caches for _, memory in engines.values())
    rows.append(("left free", available.size_bytes - used, f"of {_mb(available.size_bytes)}: {available.bound}"))
    width = max(len(name) for name, _, _ in rows)
    sizes = max(len(_mb(size)) for _, size, _ in rows)
    lines = [f"  {name:{width}}  {_mb(size):>{sizes}}  {remark}".rstrip() for name, size, remark in rows]
    return "\n".join(["memory in MB, when every cache is full:", *lines])


def _model_rows(name: str, shape: CacheShape, memory: EngineMemory, settings: Settings) -> Iterator[Row]:
    yield (name, memory.fixed + memory.caches, "")
    yield ("  weights", memory.needs.footprint.weights, "")
    yield ("  KV cache", memory.kv_cache, _kv_remark(shape, memory, settings))
    yield ("  adapter cache", memory.adapter_cache, "")
    yield ("  working memory", memory.needs.working, "")


def _kv_remark(shape: CacheShape, memory: EngineMemory, settings: Settings) -> str:
    """How many tokens the cache holds, and whether a sequence can be as long as the context window."""
    blocks, wanted = shape.plan_blocks(memory.kv_cache), context_window(shape.config, settings)
    longest = longest_sequence(shape.groups, blocks, shape.block_size, wanted)
    held = [n * shape.block_size for n, group in zip(blocks, shape.groups, strict=True) if group.window is None]
    tokens = f"{min(held):,} tokens in {shape.fmt}" if held else f"in {shape.fmt}"
    if longest < wanted:
        return f"{tokens}; longest sequence {longest:,}, fewer than {wanted:,} because memory is short"
    return f"{tokens}; longest sequence {longest:,}, {'as set' if settings.context_window else 'as the model has'}"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f}"
