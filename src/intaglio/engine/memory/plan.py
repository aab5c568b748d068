"""Whether the models and their caches fit into memory, computed before any of it is allocated.

A cache with the default size shrinks to what the models leave, down to a least size; a size that was set is never
changed. If even that does not fit, the error names the sum.

Memory is counted as if every cache were full, not as it is after the start: otherwise the kernel would kill the engine
an hour later, in the middle of a request.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from intaglio.engine.kv_cache import least_cache_bytes
from intaglio.engine.memory.available import AvailableMemory
from intaglio.errors import NotEnoughMemoryError
from intaglio.model.config import ModelConfig
from intaglio.model.footprint import Footprint
from intaglio.settings import Settings

logger = logging.getLogger(__name__)

PROGRAM_BYTES = 200 * 10**6  # an engine process besides its model: Python, libraries, adapter files being read
VERIFICATION_LOGIT_ROWS = 48  # rows in memory while an adapter is verified; one is verified at a time
LEAST_CACHE_BYTES = 64 << 20  # a cache of the default size shrinks to this at most
_CACHES = {"kv_cache_bytes": "KV cache", "adapter_cache_bytes": "adapter cache"}


@dataclass(frozen=True, slots=True)
class EngineNeeds:
    """Bytes that one engine needs besides its caches.

    working   the program, the arrays of the largest step, and one verification
    file      the checkpoint, which is mapped while it is loaded
    least_kv  the smallest KV cache that runs a sequence
    """

    footprint: Footprint
    working: int
    file: int
    least_kv: int

    @classmethod
    def of(cls, config: ModelConfig, footprint: Footprint, file_bytes: int, settings: Settings) -> EngineNeeds:
        """What a model needs with the step bounds of the settings."""
        row = 4 * config.hidden_size + 2 * config.q_size + 2 * config.kv_size + 3 * config.intermediate_size
        logits = (settings.max_running + VERIFICATION_LOGIT_ROWS) * config.vocab_size
        step = 4 * (settings.step_tokens * row + logits)  # float32
        least = least_cache_bytes(config, settings.kv_block_size, settings.step_tokens)
        return cls(footprint, PROGRAM_BYTES + step, file_bytes, least)


def fit_caches(needs: Sequence[EngineNeeds], settings: Settings, available: AvailableMemory) -> Settings:
    """The settings, with caches of the default size shrunk until all engines fit.

    needs  one per engine; each has caches of its own, and a limit of this process counts for all of them together
    Raises NotEnoughMemoryError with the sum if they do not fit even with the smallest caches.
    """
    wanted = {name: int(getattr(settings, name)) for name in _CACHES}
    floors = {
        "kv_cache_bytes": max(LEAST_CACHE_BYTES, *(need.least_kv for need in needs)),
        "adapter_cache_bytes": LEAST_CACHE_BYTES,
    }
    shrinking = [name for name in _CACHES if name not in settings.model_fields_set]
    least = wanted | {name: min(wanted[name], floors[name]) for name in shrinking}
    total = _Total(needs, least, available)
    if total.missing > 0:
        raise NotEnoughMemoryError(total.error_message(floors))
    spare = -total.missing_when_served // len(needs)
    lacking = sum(wanted.values()) - sum(least.values())
    if spare >= lacking:
        return settings
    sizes = {name: least[name] + (wanted[name] - least[name]) * spare // lacking for name in _CACHES}
    changes = ", ".join(f"{name} {_format_mb(sizes[name])} instead of {_format_mb(wanted[name])}" for name in shrinking)
    logger.warning("%s available (%s): %s", _format_mb(available.size_bytes), available.bound, changes)
    return settings.model_copy(update=sizes)


@dataclass(frozen=True, slots=True)
class _Total:
    """What all engines need together. caches: size by setting, in each engine."""

    needs: Sequence[EngineNeeds]
    caches: Mapping[str, int]
    available: AvailableMemory

    @property
    def fixed(self) -> int:
        """Needed all the time, whatever the caches' sizes."""
        return sum(need.footprint.weights + need.working for need in self.needs)

    @property
    def loading(self) -> int:
        """Needed for a moment at the start: models are loaded one after the other, and no cache is in use yet."""
        return max(need.footprint.loading + need.file * self.available.counts_mappings for need in self.needs)

    @property
    def serving(self) -> int:
        """The caches of all engines, full."""
        return len(self.needs) * sum(self.caches.values())

    @property
    def missing_when_served(self) -> int:
        """Missing bytes; negative if some are left."""
        return self.fixed + self.serving - self.available.size_bytes

    @property
    def missing(self) -> int:
        return max(self.missing_when_served, self.fixed + self.loading - self.available.size_bytes)

    def error_message(self, floors: Mapping[str, int]) -> str:
        """The sum, each summand with its setting, and what to do."""
        models = f" of {len(self.needs)} models" if len(self.needs) > 1 else ""
        weights = sum(need.footprint.weights for need in self.needs)
        working = sum(need.working for need in self.needs)
        parts = [f"weights {_format_mb(weights)} (format)"]
        if self.loading > self.serving:
            parts.append(f"loading them {_format_mb(self.loading)} for a moment")
        else:
            parts += [
                f"{_CACHES[name]} {_format_mb(size * len(self.needs))} ({name})" for name, size in self.caches.items()
            ]
        parts.append(f"working memory {_format_mb(working)} (step_tokens, max_running)")
        return (
            f"not enough memory: {_format_mb(self.available.size_bytes + self.missing)} needed, "
            f"{_format_mb(self.available.size_bytes)} available ({self.available.bound}). "
            f"The sum{models}: {', '.join(parts)}. {self._advice(floors)}"
        )

    def _advice(self, floors: Mapping[str, int]) -> str:
        spare = {name: max(0, size - floors[name]) for name, size in self.caches.items()}
        lower = " or ".join(name for name in spare if spare[name])
        each = -(-self.missing // (len(self.needs) * 10**6)) * 10**6  # rounded up, so that the advice is enough
        if lower and self.loading <= self.serving and each <= sum(spare.values()):
            return f"Lower {lower} by {_format_mb(each)}"
        return "Smaller caches are not enough: use a smaller model, or fewer bits (format w8 or w4)"


def _format_mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"
