"""The scores of one prompt, collected as its rows are computed: packed, and kept while its sequence is preempted."""

from __future__ import annotations

import math
from array import array

from intaglio.ops import LogprobsRow
from intaglio.request import PromptLogprobs


class PromptScores:
    """Row i scores token i + 1 of the prompt: what follows its last token is sampled, not scored.

    num_rows  tokens of the prompt but the first
    num_best  most probable tokens that each row has
    failed    whether a row had no finite logits
    """

    def __init__(self, num_rows: int, num_best: int) -> None:
        self.num_rows = num_rows
        self.num_best = num_best
        self.failed = False
        self._chosen, self._ranks = array("d"), array("i")
        self._best_ids, self._best = array("i"), array("d")

    def __len__(self) -> int:
        """How many rows there are so far, from the first on."""
        return len(self._chosen)

    @property
    def is_complete(self) -> bool:
        return len(self) == self.num_rows

    def add(self, row: LogprobsRow) -> None:
        """The next row."""
        assert not self.is_complete, "a prompt has no further row"
        self.failed |= math.isnan(row.chosen)
        missing = self.num_best - len(row.best)
        self._chosen.append(row.chosen)
        self._ranks.append(row.rank)
        self._best_ids.extend([*(token for token, _ in row.best), *[-1] * missing])
        self._best.extend([*(logprob for _, logprob in row.best), *[-math.inf] * missing])

    def packed(self) -> PromptLogprobs:
        arrays = (self._chosen, self._ranks, self._best_ids, self._best)
        return PromptLogprobs(self.num_best, *(values.tobytes() for values in arrays))
