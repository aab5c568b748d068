"""What an adapter config says about one module: is it adapted, with which rank, with which scaling. As PEFT decides it.

rank     value of the first key of rank_pattern, in file order, that matches the module's path; else r
alpha    the same with alpha_pattern; else lora_alpha
scaling  alpha / rank, with rsLoRA alpha / sqrt(rank)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Generic, TypeVar

from intaglio.lora.patterns import MatchBudget, ModulePattern, PatternKey
from intaglio.lora.peft_config import PeftConfig

Number = TypeVar("Number", bound=float)


class ModuleRules:
    """The rules of one adapter, their expressions compiled.

    Building it raises AdapterError for an expression that is wrong; asking raises it when they take too long.
    """

    def __init__(self, config: PeftConfig) -> None:
        self._config = config
        self._budget = MatchBudget()
        self._ranks = _FirstMatch("rank_pattern", config.rank_pattern, config.r)
        self._alphas = _FirstMatch("alpha_pattern", config.alpha_pattern, config.lora_alpha)
        targets = config.target_modules
        is_all_linear = isinstance(targets, str) and targets.lower() == "all-linear"
        self._targets = None if is_all_linear else _ModuleSet("target_modules", targets)
        self._excluded = _ModuleSet("exclude_modules", config.exclude_modules)

    def covers(self, path: str, layer: int) -> bool:
        """Whether training with this config adapted the module, one of the seven projections of the layer."""
        if self._excluded.contains(path, self._budget):
            return False
        if self._config.layers_to_transform is not None and layer not in self._config.layers_to_transform:
            return False
        return self._targets is None or self._targets.contains(path, self._budget)

    def rank(self, path: str) -> int:
        return self._ranks.value(path, self._budget)

    def scaling(self, path: str, rank: int) -> float:
        """rank is the module's own, as `rank` gives it."""
        return self._alphas.value(path, self._budget) / (math.sqrt(rank) if self._config.use_rslora else rank)


class _FirstMatch(Generic[Number]):
    """A pattern setting: expression -> value, with the value of the modules that no expression matches."""

    def __init__(self, setting: str, pattern: Mapping[str, Number], default: Number) -> None:
        self._keys = [(PatternKey(key, setting), value) for key, value in pattern.items()]
        self._default = default

    def value(self, path: str, budget: MatchBudget) -> Number:
        return next((value for key, value in self._keys if key.matches(path, budget)), self._default)


class _ModuleSet:
    """target_modules or exclude_modules: names (a path is one, or ends with one after a dot), or one expression."""

    def __init__(self, setting: str, modules: tuple[str, ...] | str) -> None:
        self._pattern = ModulePattern(modules, setting) if isinstance(modules, str) else None
        self._names: frozenset[str] = frozenset() if isinstance(modules, str) else frozenset(modules)

    def contains(self, path: str, budget: MatchBudget) -> bool:
        if self._pattern is not None:
            return self._pattern.matches_all(path, budget)
        parts = path.split(".")
        return any(".".join(parts[start:]) in self._names for start in range(len(parts)))
