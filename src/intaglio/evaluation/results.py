"""The figures of an evaluation. Losses and divergences in nats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Perplexity:
    """loss: mean negative log probability of a token. loss_error: its standard error over the tokens."""

    loss: float
    loss_error: float

    @classmethod
    def of(cls, losses: F64) -> Perplexity:
        spread = float(losses.std(ddof=1)) if len(losses) > 1 else 0.0
        return cls(float(losses.mean()), spread / math.sqrt(len(losses)))

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf  # exp(710) is beyond a float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The evaluated subject against the reference.

    kl_mean, kl_p99, kl_max  of KL(reference || evaluated) over the tokens
    same_best         share of tokens for which both have the same most probable token
    perplexity_ratio  evaluated / reference
    """

    kl_mean: float
    kl_p99: float
    kl_max: float
    same_best: float
    perplexity_ratio: float


@dataclass(frozen=True, slots=True)
class TextResult:
    """One text, or all of them. reference, comparison: None without a reference."""

    name: str
    num_tokens: int
    num_windows: int
    evaluated: Perplexity
    reference: Perplexity | None
    comparison: Comparison | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a run found. total: over all tokens of all texts."""

    evaluated: str
    reference: str | None
    context_length: int
    stride: int
    texts: list[TextResult]
    total: TextResult
    seconds: float


@dataclass(slots=True)
class Samples:
    """What is kept of each scored token."""

    losses: list[F64] = field(default_factory=list)
    reference_losses: list[F64] = field(default_factory=list)
    kl: list[F64] = field(default_factory=list)
    same_best: list[NDArray[np.bool_]] = field(default_factory=list)
    num_windows: int = 0

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        whole = cls()
        for part in parts:
            whole.losses += part.losses
            whole.reference_losses += part.reference_losses
            whole.kl += part.kl
            whole.same_best += part.same_best
            whole.num_windows += part.num_windows
        return whole

    def result(self, name: str) -> TextResult:
        losses = np.concatenate(self.losses)
        evaluated = Perplexity.of(losses)
        if not self.kl:
            return TextResult(name, len(losses), self.num_windows, evaluated, None, None)
        reference = Perplexity.of(np.concatenate(self.reference_losses))
        kl = np.concatenate(self.kl)
        comparison = Comparison(
            kl_mean=float(kl.mean()),
            kl_p99=float(np.quantile(kl, 0.99)),
            kl_max=float(kl.max()),
            same_best=float(np.concatenate(self.same_best).mean()),
            perplexity_ratio=math.exp(min(evaluated.loss - reference.loss, 700)),
        )
        return TextResult(name, len(losses), self.num_windows, evaluated, reference, comparison)
