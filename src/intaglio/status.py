"""What an engine is doing now, and what it has counted since it started."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

_Count = Annotated[int, Meta(ge=0)]


class AdapterInMemory(Struct, frozen=True):
    """num_running: running requests that use the adapter."""

    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    num_bytes: _Count
    num_running: _Count


class EngineStatus(Struct, frozen=True, kw_only=True):
    """The first seven fields are of this moment, the others count since the engine started.

    running, waiting         requests; `running_on_base` of those that run have no adapter
    adapters                 those in memory, the most recently used first
    adapter_cache_bytes      what they may take together
    kv_cache_bytes           keys and values: what there is room for,
    kv_used_bytes            what running requests hold,
    kv_prefix_bytes          and what is only kept for prompts that begin alike
    steps                    forward passes
    computed_prompt_tokens   tokens of prompts that were computed, again after a preemption too
    cached_prompt_tokens     tokens of prompts that were found in the prefix cache
    completion_tokens        sampled tokens
    preemptions              how often a running request had to wait again, because the KV cache was full
    """

    running: _Count
    running_on_base: _Count
    waiting: _Count
    adapters: list[AdapterInMemory]
    adapter_cache_bytes: _Count
    kv_cache_bytes: _Count
    kv_used_bytes: _Count
    kv_prefix_bytes: _Count
    steps: _Count
    computed_prompt_tokens: _Count
    cached_prompt_tokens: _Count
    completion_tokens: _Count
    preemptions: _Count
