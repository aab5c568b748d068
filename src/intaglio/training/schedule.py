"""How many steps, and the learning rate of each."""

from __future__ import annotations

import math

from intaglio.training.batches import steps_per_epoch
from intaglio.training.options import TrainingOptions

DEFAULT_EPOCHS = 3.0
_WARM_UP = 20  # steps, or a tenth of a shorter run


def num_steps(options: TrainingOptions, num_examples: int) -> int:
    """The steps asked for, or those of the epochs asked for: at least one."""
    if options.steps is not None:
        return options.steps
    epochs = DEFAULT_EPOCHS if options.epochs is None else options.epochs
    return max(1, round(epochs * steps_per_epoch(num_examples, options.batch_size)))


def learning_rate(step: int, steps: int, peak: float) -> float:
    """A linear rise to the peak, then a cosine down to a tenth of it. step counts from 0."""
    warm_up = max(1, min(_WARM_UP, steps // 10))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))))
