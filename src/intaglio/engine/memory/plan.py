"""What each engine may use of the memory, decided before any of it is allocated.

A cache whose size was set keeps it. The others share the memory that is left: first until every engine has a KV cache
for one sequence of its whole context window and an adapter cache of the default size, then the KV caches grow until all
sequences that may run at once could be that long. If not even the smallest caches fit, the error has the sum.

Memory is counted as if every cache were full, not as it is after the start: otherwise the kernel would kill the engine
an hour later, in the middle of a request.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from intaglio.engine.kv_cache import CacheShape
from intaglio.engine.memory.available import AvailableMemory
from intaglio.errors import NotEnoughMemoryError
from intaglio.model.config import ModelConfig
from intaglio.model.footprint import Footprint
from intaglio.settings import Settings

PROGRAM_BYTES = 200 * 10**6  # an engine process besides its model: Python, libraries, adapter files being read
VERIFICATION_LOGIT_ROWS = 48  # rows in memory while an adapter is verified; one is verified at a time
QUERIES_AT_ONCE = 32  # kQueries in csrc/kernels/kernels.h
LEAST_CACHE_BYTES = 64 << 20  # a cache whose size was not set has at least this
SPARE_SHARE = 0.9  # of the available memory that all engines may fill; the rest is left to other programs


@dataclass(frozen=True, slots=True)
class EngineNeeds:
    """Bytes that one engine needs besides its caches, and sizes of its KV cache to choose from.

    working    the program, the arrays of the largest step, and one verification
    file       the checkpoint, which is mapped while it is loaded
    least_kv   the smallest KV cache that runs a sequence; of the context window, if that was set
    window_kv  a KV cache that holds one sequence of the context window
    useful_kv  a KV cache that holds as many of those as may run at once
    """

    footprint: Footprint
    working: int
    file: int
    least_kv: int
    window_kv: int
    useful_kv: int

    @classmethod
    def of(cls, shape: CacheShape, footprint: Footprint, file_bytes: int, settings: Settings) -> EngineNeeds:
        """What a model needs with the step bounds of the settings."""
        config, window = shape.config, context_window(shape.config, settings)
        row = 4 * config.hidden_size + 2 * config.q_size + 2 * config.kv_size + 3 * config.intermediate_size
        logits = (settings.max_running + VERIFICATION_LOGIT_ROWS) * config.vocab_size
        step = 4 * (settings.step_tokens * row + logits)  # float32
        # Attention keeps the scores of the queries that a thread computes together.
        scores = 4 * QUERIES_AT_ONCE * window * (settings.threads or os.cpu_count() or 1)
        window_kv = shape.bytes_for(1, window)
        least = window_kv if settings.context_window is not None else shape.least_bytes()
        useful = shape.bytes_for(settings.max_running, window)
        return cls(footprint, PROGRAM_BYTES + step + scores, file_bytes, least, window_kv, useful)


def context_window(config: ModelConfig, settings: Settings) -> int:
    """Tokens of prompt and completion together that the settings ask for, or that the checkpoint allows."""
    return min(settings.context_window or config.context_length, config.context_length)


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """What one engine may use: its needs, and the bytes of its caches."""

    needs: EngineNeeds
    kv_cache: int
    adapter_cache: int

    @property
    def caches(self) -> int:
        return self.kv_cache + self.adapter_cache

    @property
    def fixed(self) -> int:
        """Bytes used all the time, whatever the caches' sizes."""
        return self.needs.footprint.weights + self.needs.working

    def settings(self, settings: Settings) -> Settings:
        """The settings with the sizes of this engine's caches."""
        sizes = {"kv_cache_bytes": self.kv_cache, "adapter_cache_bytes": self.adapter_cache}
        return settings.model_copy(update=sizes)


def plan_memory(needs: Sequence[EngineNeeds], settings: Settings, available: AvailableMemory) -> list[EngineMemory]:
    """The memory of each engine; a limit of this process counts for all of them together.

    Raises NotEnoughMemoryError with the sum if they do not fit even with the smallest caches.
    """
    is_set = {name for name in _CACHES if name in settings.model_fields_set and getattr(settings, name) is not None}
    least = [_smallest(need, settings, is_set) for need in needs]
    total = _Total(least, available, is_set)
    if total.missing > 0:
        raise NotEnoughMemoryError(total.error_message())
    usual = [
        replace(
            one,
            kv_cache=one.kv_cache if "kv_cache_bytes" in is_set else max(one.kv_cache, one.needs.window_kv),
            adapter_cache=settings.adapter_cache_bytes,
        )
        for one in least
    ]
    engines = _grow(least, usual, -total.missing_when_served)
    if "kv_cache_bytes" not in is_set and available.size_bytes < sys.maxsize:  # a bound is known
        spare = int(available.size_bytes * SPARE_SHARE) - sum(one.fixed + one.caches for one in engines)
        useful = [replace(one, kv_cache=max(one.kv_cache, one.needs.useful_kv)) for one in engines]
        engines = _grow(engines, useful, max(0, spare))
    return engines


def _smallest(need: EngineNeeds, settings: Settings, is_set: set[str]) -> EngineMemory:
    kv_cache = settings.kv_cache_bytes if "kv_cache_bytes" in is_set else None
    adapter_cache = settings.adapter_cache_bytes
    return EngineMemory(
        need,
        max(LEAST_CACHE_BYTES, need.least_kv) if kv_cache is None else kv_cache,
        adapter_cache if "adapter_cache_bytes" in is_set else min(adapter_cache, LEAST_CACHE_BYTES),
    )


def _grow(engines: Sequence[EngineMemory], wanted: Sequence[EngineMemory], spare: int) -> list[EngineMemory]:
    """The caches enlarged to the wanted sizes; with too few `spare` bytes, all by the same share of what they lack."""
    lacking = sum(wish.caches - one.caches for one, wish in zip(engines, wanted, strict=True))
    if lacking <= spare:
        return list(wanted)

    def between(least: int, most: int) -> int:
        return least + (most - least) * spare // lacking

    return [
        replace(
            one,
            kv_cache=between(one.kv_cache, wish.kv_cache),
            adapter_cache=between(one.adapter_cache, wish.adapter_cache),
        )
        for one, wish in zip(engines, wanted, strict=True)
    ]


_CACHES = {"kv_cache_bytes": "KV cache", "adapter_cache_bytes": "adapter cache"}


@dataclass(frozen=True, slots=True)
class _Total:
    """What all engines need together. is_set: the caches whose size the settings have."""

    engines: Sequence[EngineMemory]
    available: AvailableMemory
    is_set: set[str]

    @property
    def fixed(self) -> int:
        return sum(one.fixed for one in self.engines)

    @property
    def loading(self) -> int:
        """Needed for a moment at the start: models are loaded one after the other, and no cache is in use yet."""
        return max(
            one.needs.footprint.loading + one.needs.file * self.available.counts_mappings for one in self.engines
        )

    @property
    def serving(self) -> int:
        """The caches of all engines, full."""
        return sum(one.caches for one in self.engines)

    @property
    def missing_when_served(self) -> int:
        """Missing bytes; negative if some are left."""
        return self.fixed + self.serving - self.available.size_bytes

    @property
    def missing(self) -> int:
        return max(self.missing_when_served, self.fixed + self.loading - self.available.size_bytes)

    def error_message(self) -> str:
        """The sum, each summand with its setting, and what to do."""
        models = f" of {len(self.engines)} models" if len(self.engines) > 1 else ""
        weights = sum(one.needs.footprint.weights for one in self.engines)
        working = sum(one.needs.working for one in self.engines)
        parts = [f"weights {format_mb(weights)} (format)"]
        if self.loading > self.serving:
            parts.append(f"loading them {format_mb(self.loading)} for a moment")
        else:
            parts += [
                f"KV cache {format_mb(sum(one.kv_cache for one in self.engines))} (kv_cache_bytes)",
                f"adapter cache {format_mb(sum(one.adapter_cache for one in self.engines))} (adapter_cache_bytes)",
            ]
        parts.append(f"working memory {format_mb(working)} (step_tokens, max_running)")
        return (
            f"not enough memory: {format_mb(self.available.size_bytes + self.missing)} needed, "
            f"{format_mb(self.available.size_bytes)} available ({self.available.bound}). "
            f"The sum{models}: {', '.join(parts)}. {self._advice()}"
        )

    def _advice(self) -> str:
        """What can be lowered: the caches whose sizes were set, if that is enough."""
        spare = {
            "kv_cache_bytes": min(one.kv_cache - max(LEAST_CACHE_BYTES, one.needs.least_kv) for one in self.engines),
            "adapter_cache_bytes": min(one.adapter_cache - LEAST_CACHE_BYTES for one in self.engines),
        }
        lowered = [name for name in _CACHES if name in self.is_set and spare[name] > 0]
        each = -(-self.missing // (len(self.engines) * 10**6)) * 10**6  # rounded up, so that the advice is enough
        if lowered and self.loading <= self.serving and each <= sum(spare[name] for name in lowered):
            return f"Lower {' or '.join(lowered)} by {format_mb(each)}"
        is_held = any(
            one.kv_cache > LEAST_CACHE_BYTES and one.needs.least_kv == one.needs.window_kv for one in self.engines
        )
        if is_held and self.loading <= self.serving:
            return "Use a smaller context_window, kv_format int8, a smaller model, or fewer bits (format w8 or w4)"
        return "Smaller caches are not enough: use a smaller model, or fewer bits (format w8 or w4)"


def format_mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"
