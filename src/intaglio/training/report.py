"""Progress messages of a run. The command shows them with a progress bar; tests collect them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well a model does on the held-out examples.

    loss        mean cross entropy per answer token, in nats, over the whole vocabulary
    perplexity  its exponential
    exact       fraction of the chats whose answers are all generated token for token at temperature 0; None if no chats
    """

    loss: float
    perplexity: float
    exact: float | None
    num_examples: int


class Report(Protocol):
    """Called in the order of the run."""

    def note(self, text: str) -> None:
        """One sentence about the next step or a result."""

    def begin(self, steps: int) -> None:
        """The first of `steps` steps begins."""

    def step(self, number: int, loss: float, learning_rate: float, tokens: int) -> None:
        """A step is done. number counts from 1; loss is smoothed; tokens: of its examples, without padding."""

    def end(self) -> None:
        """The last step is over. Also called when training failed or was interrupted."""

    def evaluated(self, when: str, evaluation: Evaluation) -> None:
        """when: "before" or "after"."""
