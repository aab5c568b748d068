"""What an adapter config means for one module, by PEFT's rules: whether it is adapted, its rank and its scaling.

rank     value of the first key of rank_pattern, in file order, that matches the module's path; else r
alpha    the same with alpha_pattern; else lora_alpha
scaling  alpha / rank, with rsLoRA alpha / sqrt(rank)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Generic, TypeVar

from intaglio.errors import AdapterError
from intaglio.lora.peft.config import CONFIG_FILE, PeftConfig
from intaglio.lora.peft.patterns import MAX_CHARS_TOGETHER, MatchBudget, ModulePattern, PatternKey
from intaglio.ops import MODEL

Number = TypeVar("Number", bound=float)


class ModuleRules:
    """The rules of one adapter, their expressions compiled.

    The constructor raises AdapterError for an invalid expression, the methods if matching takes too long.
    """

    def __init__(self, config: PeftConfig) -> None:
        _check_total_length(config)
        self._config = config
        self._budget = MatchBudget()
        self._ranks = _FirstMatch("rank_pattern", config.rank_pattern, config.r)
        self._alphas = _FirstMatch("alpha_pattern", config.alpha_pattern, config.lora_alpha)
        targets = config.target_modules
        is_all_linear = isinstance(targets, str) and targets.lower() == "all-linear"
        self._targets = None if is_all_linear else _ModuleSet("target_modules", targets)
        self._excluded = _ModuleSet("exclude_modules", config.exclude_modules)
        self._layers_patterns = [
            ModulePattern(rf"(?:^|.*?\.){pattern}\.\d+\.", "layers_pattern") for pattern in config.layers_pattern
        ]

    def covers(self, path: str, layer: int) -> bool:
        """Whether training with this config adapted the module. layer is MODEL for embed_tokens and lm_head."""
        if self._excluded.contains(path, self._budget):
            return False
        if self._targets is None:  # all-linear leaves out the head, and the embedding is not linear
            return layer != MODEL and self._is_transformed(path, layer)
        if self._targets.is_named(path):  # a full path is adapted regardless of layers_to_transform
            return True
        return self._targets.contains(path, self._budget) and self._is_transformed(path, layer)

    def _is_transformed(self, path: str, layer: int) -> bool:
        """Whether layers_to_transform includes the module; if it is set, it excludes modules outside the layers."""
        if self._config.layers_to_transform is None:
            return True
        patterns = self._layers_patterns
        is_layer = not patterns or any(pattern.matches_start(path, self._budget) for pattern in patterns)
        return is_layer and layer in self._config.layers_to_transform

    def rank(self, path: str) -> int:
        return self._ranks.value(path, self._budget)

    def scaling(self, path: str, rank: int) -> float:
        """rank: that of the module, from `rank`."""
        return self._alphas.value(path, self._budget) / (math.sqrt(rank) if self._config.use_rslora else rank)

    def saves(self, path: str) -> bool:
        """Whether modules_to_save, a list of ends of paths, names the module."""
        return any(path.endswith(name) for name in self._config.modules_to_save)

    def token_ids(self, path: str) -> tuple[int, ...]:
        """The tokens of this table whose rows were trained; empty if trainable_token_indices has no such table."""
        return next((ids for name, ids in self._config.token_indices.items() if path.endswith(name)), ())


def _check_total_length(config: PeftConfig) -> None:
    modules = [value for value in (config.target_modules, config.exclude_modules) if isinstance(value, str)]
    expressions = [*modules, *config.layers_pattern, *config.rank_pattern, *config.alpha_pattern]
    chars = sum(map(len, expressions))
    if chars > MAX_CHARS_TOGETHER:
        raise AdapterError(
            f"{CONFIG_FILE}: its expressions (target_modules, rank_pattern, ...) have {chars} characters together; "
            f"the limit is {MAX_CHARS_TOGETHER}"
        )


class _FirstMatch(Generic[Number]):
    """A pattern setting, expression -> value, and the value of modules that no expression matches."""

    def __init__(self, setting: str, pattern: Mapping[str, Number], default: Number) -> None:
        self._keys = [(PatternKey(key, setting), value) for key, value in pattern.items()]
        self._default = default

    def value(self, path: str, budget: MatchBudget) -> Number:
        return next((value for key, value in self._keys if key.matches(path, budget)), self._default)


class _ModuleSet:
    """target_modules or exclude_modules: names that a path equals or ends with after a dot, or one expression."""

    def __init__(self, setting: str, modules: tuple[str, ...] | str) -> None:
        self._pattern = ModulePattern(modules, setting) if isinstance(modules, str) else None
        self._names: frozenset[str] = frozenset() if isinstance(modules, str) else frozenset(modules)

    def is_named(self, path: str) -> bool:
        """Whether the list has this full path."""
        return path in self._names

    def contains(self, path: str, budget: MatchBudget) -> bool:
        if self._pattern is not None:
            return self._pattern.matches_all(path, budget)
        parts = path.split(".")
        return any(".".join(parts[start:]) in self._names for start in range(len(parts)))
