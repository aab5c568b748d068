"""The optimizer's steps."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from intaglio.errors import TrainingError
from intaglio.training.batches import endless_batches
from intaglio.training.encode import Tokens
from intaglio.training.loss import Head, answer_states
from intaglio.training.options import TrainingOptions
from intaglio.training.report import Report
from intaglio.training.schedule import learning_rate

_MAX_NORM = 1.0  # gradients are cut to this length
_SMOOTHING = 0.8  # of the loss that is shown: over about five steps, so that it is of now even in a short run


def run_steps(
    model: Any,
    examples: Sequence[Tokens],
    options: TrainingOptions,
    steps: int,
    report: Report,
    checkpoint: Callable[[int], None],
) -> None:
    """Train the weights of `model`, a PeftModel, that want a gradient.

    checkpoint   called with the number of steps done, every `checkpoint_every` and at the end
    Raises TrainingError if the loss is no number any more.
    """
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.learning_rate, weight_decay=0.0)
    feed = endless_batches(examples, options.batch_size, random.Random(options.seed))
    base = model.get_base_model()
    head = Head(base, options.shortlist, examples)
    smooth = math.nan
    for step in range(steps):
        rate = learning_rate(step, steps, options.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = head.loss(answer_states(base, next(feed)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, _MAX_NORM)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {step + 1}; a learning rate below {options.learning_rate:g} may help"
            )
        optimizer.step()
        optimizer.zero_grad()
        smooth = value if step == 0 else _SMOOTHING * smooth + (1 - _SMOOTHING) * value
        report.step(step + 1, smooth, rate)
        if (step + 1) % options.checkpoint_every == 0 or step + 1 == steps:
            checkpoint(step + 1)
