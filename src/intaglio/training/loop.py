"""The number of steps of a run, the learning rate of each, and the steps themselves."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from intaglio.errors import TrainingError
from intaglio.training.batches import endless_batches, steps_per_epoch
from intaglio.training.encode import Tokens
from intaglio.training.loss import Head, answer_states
from intaglio.training.options import TrainingOptions
from intaglio.training.report import Report

DEFAULT_EPOCHS = 3.0
_WARM_UP = 20  # steps, or a tenth of a shorter run
_MAX_NORM = 1.0  # gradients are cut to this length
_SMOOTHING = 0.8  # the displayed loss is an average over about five steps


class Pace(NamedTuple):
    """The tokens and the time of all steps of a run.

    tokens   of the examples, prompts and answers, in every epoch; without padding
    seconds  from the begin of the first step to the end of the last one, with checkpoints
    """

    tokens: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens in {self.seconds:.0f} s, {self.tokens / self.seconds:.0f} tokens per second"


def run_steps(
    model: Any,
    examples: Sequence[Tokens],
    options: TrainingOptions,
    steps: int,
    report: Report,
    checkpoint: Callable[[int], None],
) -> Pace:
    """Train the weights of `model`, a PeftModel, that require a gradient.

    checkpoint   called with the number of steps done, after every `checkpoint_every` steps and at the end
    Raises TrainingError if the loss is no longer finite.
    """
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.learning_rate, weight_decay=0.0)
    feed = endless_batches(examples, options.batch_size, random.Random(options.seed))
    base = model.get_base_model()
    head = Head(base, options.shortlist, examples)
    smooth, tokens, started = math.nan, 0, time.monotonic()
    for step in range(steps):
        rate = learning_rate(step, steps, options.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = next(feed)
        value = head.backward(answer_states(base, batch))
        torch.nn.utils.clip_grad_norm_(weights, _MAX_NORM)
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {step + 1}; a learning rate below {options.learning_rate:g} may help"
            )
        optimizer.step()
        optimizer.zero_grad()
        smooth = value if step == 0 else _SMOOTHING * smooth + (1 - _SMOOTHING) * value
        in_batch = sum(len(one.ids) for one in batch)
        tokens += in_batch
        report.step(step + 1, smooth, rate, in_batch)
        if (step + 1) % options.checkpoint_every == 0 or step + 1 == steps:
            checkpoint(step + 1)
    return Pace(tokens, time.monotonic() - started)


def num_steps(options: TrainingOptions, num_examples: int) -> int:
    """The requested steps, or those of the requested epochs: at least one."""
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
